"""Write the generated mini world: its text and its tasks."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.data import miniworld
from workflow.storage import files

with job("generate", snakemake) as log:
    with files.whole(Path(snakemake.output[0])) as folder:
        miniworld.write(miniworld.build(snakemake.params.seed), folder)
    log.info("world of seed %d written", snakemake.params.seed)
