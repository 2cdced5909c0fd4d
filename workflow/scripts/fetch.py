"""Find or download a base's files and record their hashes."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.models import checkpoints
from workflow.storage import hub

with job("fetch", snakemake) as log:
    family, step = snakemake.wildcards.family, int(snakemake.wildcards.step)
    source = snakemake.params.source
    pinned = hub.read_pin(snakemake.input[0]) if source["source"] == "hub" else None
    folder = snakemake.params.folder or checkpoints.MADE_HERE.get(source["source"], Path())
    base = checkpoints.locate(family, source, step, folder, pinned, snakemake.params.contents)
    log.info("%s step %d: %s from %s", family, step, base["source"], base["path"])
    checkpoints.write_base(base, Path(snakemake.output[0]))
