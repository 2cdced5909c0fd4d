"""Read the trials of a base's search so far and say which learning rates to try next."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.statistics import Resampling
from workflow.storage import tables
from workflow.study import grid
from workflow.training import learning_rate_search

with job("narrow", snakemake) as log:
    trials = tables.gather([Path(part) for part in snakemake.input.trials], grid.TRIAL_KEYS, tables.TRIALS)
    rates = snakemake.params.rates
    rows = learning_rate_search.measured(trials.to_pandas(), rates, Resampling(**snakemake.params.statistics))
    losses = {row["rate"]: row.get("loss") for row in rows}
    facts = {"tried": sorted(losses), "next": learning_rate_search.next_tried(rates, losses)}
    log.info("tried %d of %d learning rates, %d to try next", len(losses), len(rates), len(facts["next"]))
    tables.write(rows, tables.CHOICES, Path(snakemake.output[0]), **dict(snakemake.wildcards.items()), **facts)
