"""Write the generated mini world: its text and its tasks."""

from workflow.jobs import job

from pathlib import Path

from workflow import miniworld

with job("generate", snakemake) as log:
    miniworld.write(miniworld.build(snakemake.params.seed), Path(snakemake.output[0]))
    log.info("world of seed %d written", snakemake.params.seed)
