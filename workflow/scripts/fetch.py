"""Find a base's files and record what they are."""

from workflow.jobs import job

from pathlib import Path

from workflow import files, hub, sources

with job("fetch", snakemake) as log:
    family, step = snakemake.wildcards.family, int(snakemake.wildcards.step)
    source = snakemake.params.source
    pinned = hub.read_pin(snakemake.input[0]) if source["source"] == "hub" else None
    base = sources.locate(family, source, step, Path("resources/pretrained"), pinned)
    log.info("%s step %d: %s from %s", family, step, base["source"], base["path"])
    files.write_json(base, Path(snakemake.output[0]))
