"""Choose the learning rate whose trials have the lowest validation loss."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.statistics import Resampling
from workflow.storage import tables
from workflow.study import grid
from workflow.training import learning_rate_search

with job("choose", snakemake) as log:
    trials = tables.gather([Path(part) for part in snakemake.input.trials], grid.TRIAL_KEYS, tables.TRIALS)
    rows = learning_rate_search.choose(
        trials.to_pandas(), snakemake.params.rates, Resampling(**snakemake.params.statistics)
    )
    log.info("chosen: learning rate %g of %d", learning_rate_search.chosen_rate(rows), len(rows))
    facts = dict(snakemake.wildcards.items()) | {"steps": sorted(set(trials["step"].to_pylist()))}
    tables.write(rows, tables.CHOICES, Path(snakemake.output[0]), **facts)
