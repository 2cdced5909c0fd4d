"""Pre-train a family, from scratch or from a checkpoint, and save its checkpoints."""

from workflow.jobs.job import job, progress

from pathlib import Path

import torch

from workflow.data import corpora
from workflow.models import checkpoints, loading
from workflow.storage import checksums
from workflow.training import pretraining

with job("pretrain", snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    recipe = snakemake.params.pretraining
    root = corpora.folder(recipe, snakemake.params.data_root)
    documents = list(corpora.documents(corpora.files(root, recipe.get("domains"))))
    log.info("%d documents from %s", len(documents), root)
    start = next(iter(snakemake.input.start), None)
    base = checkpoints.read_base(start) if start else {"path": snakemake.params.folder}
    report = progress(log, "pretrain")
    history = pretraining.pretrain(
        documents,
        recipe,
        Path(snakemake.output[0]),
        lambda row: report(row["step"], recipe["steps"]),
        loading.untouched(base) if base["path"] else None,
    )
    checksums.write(Path(snakemake.output[0]))
    log.info("loss %.3f after %d steps", history[-1]["loss"], recipe["steps"])
