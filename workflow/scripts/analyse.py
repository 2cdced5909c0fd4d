"""Make one analysis of all scored rows and imported scores."""

from workflow.jobs import job

from pathlib import Path

from workflow import analyses, grid, tables
from workflow.comparison import Evidence
from workflow.statistics import Resampling

with job("analyse", snakemake) as log:
    module = grid.module(analyses, snakemake.wildcards.analysis)
    reported = tables.gather([Path(part) for part in snakemake.input.imported], grid.CELL_KEYS, tables.SCORES)
    evidence = Evidence(tables.read(snakemake.input.rows), tables.frame(reported))
    rows = module.analyse(evidence, snakemake.params.groups, Resampling(**snakemake.params.statistics))
    log.info("%d rows", len(rows))
    tables.write(rows, tables.ANALYSIS, Path(snakemake.output[0]))
