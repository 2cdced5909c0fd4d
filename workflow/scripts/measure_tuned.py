"""Measure a fine-tuned model by the indicators that it is compared with its base by."""

from workflow.jobs.job import job, progress

import functools
from pathlib import Path

import torch

from workflow import task
from workflow.indicators import measuring
from workflow.models import checkpoints, loading
from workflow.storage import tables

with job("measure_tuned", snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    base = checkpoints.read_base(snakemake.input.base, snakemake.params.folder)
    prepared = {Path(path).stem: task.examples(Path(path).stem, Path(path)) for path in snakemake.input.tasks}
    part = measuring.update(
        measuring.BaseMeasurements(),
        base,
        snakemake.params.indicators,
        lambda settings: measuring.material(settings, snakemake.params.data_root, prepared),
        functools.cache(
            lambda precision: measuring.LoadedBase(*loading.ready(base, snakemake.input.model[0], precision))
        ),
        lambda name: progress(log, f"measure_tuned {name}"),
    )
    log.info("model of %s; %s", base["path"], loading.describe())
    facts = dict(snakemake.wildcards.items()) | {"base": checkpoints.identity(base), "manifests": part.manifests}
    tables.write(part.losses, tables.MEASURED, Path(snakemake.output[0]), **facts)
