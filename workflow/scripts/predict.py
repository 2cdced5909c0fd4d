"""Predict every test of a suite by one model, in one process."""

from workflow.jobs import clock, job, progress

from pathlib import Path

import torch

from workflow import models, prediction, sources, tables, task

with job("predict", snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    suite = snakemake.params.suite
    base = sources.read_base(snakemake.input.base)
    sources.import_model(base["path"])
    log.info("imported: %s", clock())
    model, tokenizer = models.ready(base, next(iter(snakemake.input.model), None), suite["precision"])
    log.info("model of %s; %s", base["path"], models.describe())
    log.info("loaded: %s", clock())
    tests = {name: task.examples(name, path) for name, path in zip(suite["tests"], snakemake.input.tasks, strict=True)}
    rows = prediction.predict(model, tokenizer, suite, tests, progress(log, "predict"))
    facts = dict(snakemake.wildcards.items()) | {"suite_settings": suite, "base": sources.identity(base)}
    tables.write(rows, tables.PREDICTIONS, Path(snakemake.output[0]), **facts)
