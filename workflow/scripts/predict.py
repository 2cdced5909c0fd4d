"""Predict every test of a suite with one model."""

from workflow.jobs.job import clock, job, progress

from pathlib import Path

import torch

from workflow import task
from workflow.evaluation import metrics, multi_gpu, prediction
from workflow.models import checkpoints, loading
from workflow.storage import tables

with job("predict", snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    suite, gpus = snakemake.params.suite, snakemake.resources.get("gpu", 1)
    base = checkpoints.read_base(snakemake.input.base, snakemake.params.folder)
    tuned = next(iter(snakemake.input.model), None)
    tests, output = dict(zip(suite["tests"], snakemake.input.tasks, strict=True)), Path(snakemake.output[0])
    report = progress(log, "predict")
    read = {name: task.tested(name, path) for name, path in tests.items()}
    metrics.check(suite, read)
    checkpoints.import_model(base["path"])
    log.info("imported: %s", clock())
    log.info("model of %s; %s; processes: %d", base["path"], loading.describe(), gpus)
    if gpus > 1:
        rows = multi_gpu.predict(base, tuned, suite, tests, gpus, output.with_name(f"{output.name}.shards"), report)
    else:
        model, tokenizer = loading.ready(base, tuned, suite["precision"])
        log.info("loaded: %s", clock())
        rows = prediction.predict(model, tokenizer, suite, read, report)
    facts = dict(snakemake.wildcards.items()) | {"suite_settings": suite, "base": checkpoints.identity(base)}
    facts["adapters"] = loading.adapters(tuned)
    tables.write(rows, tables.PREDICTIONS, output, **facts)
