"""Record the commit of a base on the hub, with the files that a model needs."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.models import checkpoints
from workflow.storage import files

with job("pin_base", snakemake) as log:
    family, step = snakemake.wildcards.family, int(snakemake.wildcards.step)
    pinned = checkpoints.pin(family, snakemake.params.source, step)
    log.info("%s step %d: %s at %s is %s", family, step, pinned["repo"], pinned["revision"], pinned["commit"])
    files.write_json(pinned, Path(snakemake.output[0]))
