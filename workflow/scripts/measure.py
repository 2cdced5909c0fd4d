"""Measure a base's indicators in one process; unchanged indicators keep their rows."""

from workflow.jobs.job import job, progress

import functools
from pathlib import Path

import torch

from workflow import task
from workflow.indicators import measuring
from workflow.models import checkpoints, loading

with job("measure", snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    base = checkpoints.read_base(snakemake.input.base, snakemake.params.folder)
    paths = Path(snakemake.output.sums), Path(snakemake.output.losses)
    prepared = {Path(path).stem: task.examples(Path(path).stem, Path(path)) for path in snakemake.input.tasks}
    part = measuring.update(
        measuring.read(*paths),
        base,
        snakemake.params.indicators,
        lambda settings: measuring.material(settings, snakemake.params.data_root, prepared),
        functools.cache(lambda precision: measuring.LoadedBase(*loading.untouched(base, precision))),
        lambda name: progress(log, f"measure {name}"),
    )
    log.info("base %s; %s", base["path"], loading.describe())
    measuring.write(part, *paths, base=checkpoints.identity(base), **dict(snakemake.wildcards.items()))
