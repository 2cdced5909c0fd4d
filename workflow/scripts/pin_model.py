"""Record the commit of a model on the hub that was tuned elsewhere, with the files that are read of it."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.models import tuned_elsewhere
from workflow.storage import files

with job("pin_model", snakemake) as log:
    source = snakemake.params.source
    pinned = tuned_elsewhere.pin("adopted model", source["repo"], source["revision"])
    log.info("%s at %s is %s", pinned["repo"], pinned["revision"], pinned["commit"])
    files.write_json(pinned, Path(snakemake.output[0]))
