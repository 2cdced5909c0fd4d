"""Write a model with its adapters merged into the base."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.models import checkpoints, loading

with job("merge", snakemake) as log:
    base = checkpoints.read_base(snakemake.input.base, snakemake.params.folder)
    model, tokenizer = loading.ready(base, snakemake.input.model[0], "fp32", "cpu")
    loading.save_whole(model, tokenizer, Path(snakemake.output[0]), Path(snakemake.input.model[0]))
    log.info("merged into %s", base["path"])
