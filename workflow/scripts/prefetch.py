"""Download everything that the study reads from the hub, and record it."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.storage import files, hub

with job("prefetch", snakemake) as log:
    pins = [hub.read_pin(path) for path in snakemake.input]
    hub.prefetch(pins, log.info)
    files.write_json(pins, Path(snakemake.output[0]))
