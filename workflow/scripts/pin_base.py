"""Pin a base on the hub: its commit and the files that a model needs."""

import json
from pathlib import Path

from workflow import sources
from workflow.jobs import job

with job("pin_base", snakemake) as log:
    family, step = snakemake.wildcards.family, int(snakemake.wildcards.step)
    pinned = sources.pin(family, snakemake.params.source, step)
    log.info("%s step %d: %s at %s is %s", family, step, pinned["repo"], pinned["revision"], pinned["commit"])
    Path(snakemake.output[0]).write_text(json.dumps(pinned, indent=1, sort_keys=True), encoding="utf-8")
