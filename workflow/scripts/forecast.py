"""Run every forecaster on one split of a cohort: accuracy, rankings, feature importance."""

from workflow.jobs.job import job, progress

from importlib.metadata import version
from pathlib import Path

from workflow.forecasting import cohorts, forecast_accuracy, splits
from workflow.statistics import Resampling
from workflow.storage import tables

with job("forecast", snakemake) as log:
    split, block = snakemake.wildcards.split, snakemake.params.cohort
    table = cohorts.read(block)
    forecasts = forecast_accuracy.forecast(
        table, block, split, Resampling(**snakemake.params.statistics), progress(log, f"fits of {split}")
    )
    log.info("%d bases of %d units", len(table.rows), len(set(table.units)))
    log.info("%d rounds; %s", len(splits.rounds(table, split)), {name: len(rows) for name, rows in forecasts.items()})
    schemas = {"forecasts": tables.FORECASTS, "rankings": tables.RANKINGS, "importance": tables.IMPORTANCE}
    packages = {name: version(name) for name in ("lightgbm", "scikit-learn")}
    for name, schema in schemas.items():
        tables.write(forecasts[name], schema, Path(snakemake.output[name]), packages=packages)
