"""Find a base's files and record what they are."""

import json
from pathlib import Path

from workflow import hub, sources
from workflow.jobs import job

with job("fetch", snakemake) as log:
    family, step = snakemake.wildcards.family, int(snakemake.wildcards.step)
    source = snakemake.params.source
    pinned = hub.read_pin(snakemake.input[0]) if source["source"] == "hub" else None
    base = sources.locate(family, source, step, Path("resources/pretrained"), pinned)
    log.info("%s step %d: %s from %s", family, step, base["source"], base["path"])
    Path(snakemake.output[0]).write_text(json.dumps(base, indent=1, sort_keys=True), encoding="utf-8")
