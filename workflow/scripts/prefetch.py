"""Fetch all that the study reads from the hub, and write down what it is."""

import json
from pathlib import Path

from workflow import hub
from workflow.jobs import job

with job("prefetch", snakemake) as log:
    pins = [hub.read_pin(path) for path in snakemake.input]
    hub.prefetch(pins, log.info)
    Path(snakemake.output[0]).write_text(json.dumps(pins, indent=1, sort_keys=True), encoding="utf-8")
