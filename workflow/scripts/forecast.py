"""Forecast the targets by every forecaster in one split: accuracies, rankings, importance."""

from workflow.jobs import job, progress

from importlib.metadata import version
from pathlib import Path

from workflow import tables
from workflow.forecasting import forecasts, splits, variants
from workflow.statistics import Resampling

with job("forecast", snakemake) as log:
    split, block = snakemake.wildcards.split, snakemake.params.variants
    table = variants.read(block)
    found = forecasts.forecast(
        table, block, split, Resampling(**snakemake.params.statistics), progress(log, f"fits of {split}")
    )
    log.info("%d models behind %d bases", table.twins.max() + 1, len(table.rows))
    log.info("%d rounds; %s", len(splits.rounds(table, split)), {name: len(rows) for name, rows in found.items()})
    schemas = {"forecasts": tables.FORECASTS, "rankings": tables.RANKINGS, "importance": tables.IMPORTANCE}
    packages = {name: version(name) for name in ("lightgbm", "scikit-learn")}
    for name, schema in schemas.items():
        tables.write(found[name], schema, Path(snakemake.output[name]), packages=packages)
