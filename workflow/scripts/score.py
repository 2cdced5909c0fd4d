"""Compute all metrics of a cell's predictions, with confidence intervals."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.evaluation import metric_names, metrics
from workflow.statistics import Resampling
from workflow.storage import tables

with job("score", snakemake) as log:
    path = Path(snakemake.input.predictions)
    facts = tables.check_origin(path)
    suite = facts["suite_settings"]
    resampling, stemmer = Resampling(**snakemake.params.statistics), snakemake.params.stemmer
    further = list(snakemake.params.further)
    scores, items = metric_names.named(*metrics.scored(tables.read(path), suite, resampling, stemmer, further), further)
    log.info("%d scores of protocol %s", len(scores), suite["protocol"])
    tables.write(scores, tables.SCORES, Path(snakemake.output.scores), **facts)
    tables.save(items, Path(snakemake.output.rows), **facts)
