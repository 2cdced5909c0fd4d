"""Estimate the cost of a study before it runs."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.planning import costs
from workflow.storage import files

with job("estimate", snakemake) as log:
    names = [Path(path).stem for path in snakemake.input]
    table = costs.estimate(snakemake.params.study, costs.sizes(names, Path("resources/tasks")))
    log.info("%s", table.to_string(index=False))
    files.write_text(table.to_csv(index=False), Path(snakemake.output[0]))
