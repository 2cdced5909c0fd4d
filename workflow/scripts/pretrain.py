"""Pre-train a family up to one saved step, from where the piece before it stopped, and save the checkpoint."""

from workflow.jobs.job import job, progress

from pathlib import Path

import torch

from workflow.data import corpora
from workflow.models import checkpoints, loading
from workflow.storage import checksums
from workflow.training import pretraining

with job("pretrain", snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    step, out = int(snakemake.wildcards.step), Path(snakemake.output[0])
    recipe = snakemake.params.pretraining | {"save": [step]}
    root = corpora.folder(recipe, snakemake.params.data_root)
    documents = list(corpora.documents(corpora.files(root, recipe.get("domains"))))
    log.info("%d documents from %s", len(documents), root)
    start = next(iter(snakemake.input.start), None)
    base = checkpoints.read_base(start) if start else {"path": snakemake.params.folder}
    report = progress(log, "pretrain")
    files = base.get("files", {}) | snakemake.params.start
    states = pretraining.States(Path(snakemake.params.states), pretraining.fingerprint(recipe, documents, files))
    history = pretraining.pretrain(
        documents,
        recipe,
        out.parent,
        lambda row: report(row["step"], recipe["steps"]),
        loading.untouched(base) if base["path"] else None,
        states,
        step,
    )
    checksums.write(out)
    # The last state stays as long as a later step may be saved: nothing else is needed to go on.
    states.remove(before=step if step < recipe["steps"] else step + 1)
    log.info("step %d%s", step, f", loss {history[-1]['loss']:.3f}" if history else "")
