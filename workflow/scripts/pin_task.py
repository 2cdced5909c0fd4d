"""Record the commit of a task's dataset on the hub, with the files of its subset and how to read them."""

from workflow.jobs.job import job

from pathlib import Path

from workflow import task
from workflow.storage import files

with job("pin_task", snakemake) as log:
    pinned = task.pin(snakemake.wildcards.task)
    log.info("%s at %s is %s", pinned["repo"], pinned["revision"], pinned["commit"])
    files.write_json(pinned, Path(snakemake.output[0]))
