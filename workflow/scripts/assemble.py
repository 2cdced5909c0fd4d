"""Make a cohort of the study's own bases: configs, indicators, scores after fine-tuning."""

from workflow.jobs.job import job

from pathlib import Path

import pandas as pd

from workflow.forecasting import own_cohort
from workflow.indicators import aggregation
from workflow.storage import files, tables

with job("assemble", snakemake) as log:
    inputs, settings = snakemake.input, snakemake.params.indicators
    scores = tables.read(Path(inputs.scores))
    # Indicators of kind `kshot` are scores; a study with no other indicators has no measurements.
    measured = tables.read(Path(inputs.indicators[0])) if inputs.indicators else pd.DataFrame()
    values = aggregation.values(measured, settings, scores)
    table = own_cohort.table(snakemake.params.cohort, snakemake.params.bases, scores, values, snakemake.params.holes)
    log.info("%d bases, of which %d have all indicators and targets", len(table), len(table.dropna()))
    files.write_text(table.to_csv(index=False), Path(snakemake.output[0]))
