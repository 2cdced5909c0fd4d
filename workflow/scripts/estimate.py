"""Estimate the cost of a study before it runs."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.planning import costs
from workflow.storage import files

with job("estimate", snakemake) as log:
    names = [Path(path).stem for path in snakemake.input]
    table = costs.estimate(snakemake.params.study, costs.sizes(names, Path("resources/tasks")))
    text = table.to_string(index=False, float_format="%.3g")
    log.info("%s", text)
    print(text, flush=True)  # what the user asked for
    files.write_text(table.to_csv(index=False), Path(snakemake.output[0]))
