"""Train a family from scratch and keep its checkpoints."""

from pathlib import Path

import torch

from workflow import corpora, pretraining
from workflow.jobs import job, progress

with job("pretrain", snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    recipe = snakemake.params.pretraining
    root = corpora.folder(recipe, snakemake.params.data_root)
    documents = [document.text for document in corpora.documents(corpora.files(root, recipe.get("domains")))]
    log.info("%d documents from %s", len(documents), root)
    report = progress(log, "pretrain")
    history = pretraining.pretrain(
        documents, recipe, Path(snakemake.output[0]), lambda row: report(row["step"], recipe["steps"])
    )
    log.info("loss %.3f after %d steps", history[-1]["loss"], recipe["steps"])
