"""Measure a base's indicators in one process; those for which nothing has changed keep their rows."""

from workflow.jobs import job, progress

import functools
from pathlib import Path

import torch

from workflow import measuring, models, sources, task

with job("measure", snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    base = sources.read_base(snakemake.input.base, snakemake.params.folder)
    paths = Path(snakemake.output.sums), Path(snakemake.output.losses)
    prepared = {Path(path).stem: task.examples(Path(path).stem, Path(path)) for path in snakemake.input.tasks}
    part = measuring.update(
        measuring.read(*paths),
        base,
        snakemake.params.indicators,
        lambda settings: measuring.material(settings, snakemake.params.data_root, prepared),
        functools.cache(lambda precision: measuring.Subject(*models.untouched(base, precision))),
        lambda name: progress(log, f"measure {name}"),
    )
    log.info("base %s; %s", base["path"], models.describe())
    measuring.write(part, *paths, base=sources.identity(base), **dict(snakemake.wildcards.items()))
