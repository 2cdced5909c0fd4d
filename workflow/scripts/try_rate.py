"""Fine-tune a base with one of a recipe's learning rates and measure the validation loss; the weights are not kept."""

from workflow.jobs.job import job, progress

from pathlib import Path

import torch

from workflow.errors import DivergedError
from workflow.models.encoding import padding
from workflow.storage import tables
from workflow.training import finetuning, multi_gpu, setup

SEED = 0

with job("try_rate", snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    keys, recipe = dict(snakemake.wildcards.items()) | {"seed": SEED}, snakemake.params.recipe
    paths = {"base": snakemake.input.base, "task": snakemake.input.task}
    paths |= {"state": snakemake.params.state, "folder": snakemake.params.folder}
    paths["data_root"] = snakemake.config.get("data_root")
    start = setup.read(keys, recipe, paths, log, held=True)
    tried = multi_gpu.tune_and_validate if recipe["gpus"] > 1 else finetuning.tune_and_validate
    settings = recipe, SEED, padding(start.tokenizer), start.state, progress(log, "try_rate")
    try:
        with start.recorded(Path(snakemake.params.record)):
            losses = tried(start.model, start.rows, list(start.held.values()), *settings)
    except DivergedError as error:
        log.warning("%s", error)
        losses = finetuning.unmeasured(start.held.values())
    lost = sum(loss["loss"] is None for loss in losses)
    log.info("learning rate %g: %d of %d validation losses not finite", recipe["learning_rate"], lost, len(losses))
    trial = {"learning_rate": recipe["learning_rate"]}
    parts = [{"id": name, **trial, **loss} for name, loss in zip(start.held, losses, strict=True)]
    tables.write(parts, tables.TRIALS, Path(snakemake.output[0]), **start.lineage)
    start.state.remove()
