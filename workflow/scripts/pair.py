"""List all pairs of bases for each target: difference, gap, shared config fields."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.forecasting import cohorts, pairs
from workflow.storage import tables

with job("pair", snakemake) as log:
    rows = pairs.rows(cohorts.read(snakemake.params.cohort))
    log.info("%d pairs", len(rows))
    tables.write(rows, tables.PAIRS, Path(snakemake.output[0]))
