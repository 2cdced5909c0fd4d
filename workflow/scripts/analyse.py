"""Run one analysis on all scored rows and imported scores."""

from workflow.jobs.job import job

from pathlib import Path

from workflow import registry
from workflow.analysis import analyses
from workflow.analysis.evidence import Evidence
from workflow.statistics import Resampling
from workflow.storage import tables
from workflow.study import grid

with job("analyse", snakemake) as log:
    module = registry.module(analyses, snakemake.wildcards.analysis)
    reported = tables.gather([Path(part) for part in snakemake.input.imported], grid.CELL_KEYS, tables.SCORES)
    # Means of checkpoints share checkpoints with each other: they are no further points of a curve.
    left_out = frozenset(snakemake.params.averaged) if getattr(module, "SAVED_STEPS_ONLY", False) else frozenset()
    evidence = Evidence(Path(snakemake.input.rows), tables.frame(reported), left_out)
    rows = module.analyse(evidence, snakemake.params.groups, Resampling(**snakemake.params.statistics))
    log.info("%d rows", len(rows))
    tables.write(rows, tables.ANALYSIS, Path(snakemake.output[0]))
