"""Make one analysis of all scored rows."""

import importlib
from pathlib import Path

from workflow import grid, tables
from workflow.jobs import job
from workflow.statistics import Resampling

with job("analyse", snakemake) as log:
    module = importlib.import_module(f"workflow.analyses.{snakemake.wildcards.analysis}")
    items = tables.gather([Path(part) for part in snakemake.input.rows], grid.CELL_KEYS, tables.ITEMS)
    rows = module.analyse(items.to_pandas(), snakemake.params.groups, Resampling(**snakemake.params.statistics))
    log.info("%d rows", len(rows))
    tables.write(rows, tables.ANALYSIS, Path(snakemake.output[0]))
