"""Pin a task's dataset on the hub: its commit, the files of its subset and how they are read."""

import json
from pathlib import Path

from workflow import task
from workflow.jobs import job

with job("pin_task", snakemake) as log:
    pinned = task.pin(snakemake.wildcards.task)
    log.info("%s at %s is %s", pinned["repo"], pinned["revision"], pinned["commit"])
    Path(snakemake.output[0]).write_text(json.dumps(pinned, indent=1, sort_keys=True), encoding="utf-8")
