"""Download everything that the study reads from the hub, and record it."""

from workflow.jobs.job import job

import sys
from pathlib import Path

from workflow.models import revisions
from workflow.storage import files, hub, tables

with job("prefetch", snakemake) as log:
    pins = {path: hub.read_pin(path) for path in snakemake.input}
    bases = {path: tables.keys_of(Path(path)) for path in pins if "/bases/" in path}
    for line in revisions.equal_weights(
        {(base_keys["family"], int(base_keys["step"])): pins[path] for path, base_keys in bases.items()}
    ):
        log.warning("%s", line)
        print(f"Warning: {line}.", file=sys.stderr)
    hub.prefetch(list(pins.values()), log.info)
    files.write_json(list(pins.values()), Path(snakemake.output[0]))
