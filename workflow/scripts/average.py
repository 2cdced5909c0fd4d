"""Average the checkpoints of a run's last steps, weight by weight."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.models import averaging, checkpoints

with job("average", snakemake) as log:
    root, folders = snakemake.params.root, snakemake.params.folders  # of a local family, which may have moved
    places = [root / folder if root else None for folder in folders]
    bases = [checkpoints.read_base(path, place) for path, place in zip(snakemake.input.bases, places, strict=True)]
    averaging.write(bases, Path(snakemake.output[0]))
    log.info("mean of steps %s", ", ".join(str(base["step"]) for base in bases))
