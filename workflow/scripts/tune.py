"""Fine-tune a base on a task with one prompt format, recipe and seed."""

from workflow.jobs.job import job, progress

from pathlib import Path

import torch

from workflow.models import loading
from workflow.models.encoding import padding
from workflow.storage import tables
from workflow.training import finetuning, multi_gpu, setup

with job("tune", snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    keys, recipe = dict(snakemake.wildcards.items()), snakemake.params.recipe
    paths = {"base": snakemake.input.base, "task": snakemake.input.task}
    paths |= {"state": snakemake.params.state, "folder": snakemake.params.folder}
    paths["data_root"] = snakemake.config.get("data_root")
    start = setup.read(keys, recipe, paths, log)
    tune = multi_gpu.tune if recipe["gpus"] > 1 else finetuning.tune
    settings = recipe, int(keys["seed"]), padding(start.tokenizer), start.state, progress(log, "tune")
    with start.recorded(Path(snakemake.params.record)):
        history = tune(start.model, start.rows, *settings)
    tables.write(history, tables.HISTORY, Path(snakemake.output.history), **start.lineage)
    loading.save(start.model, start.tokenizer, Path(snakemake.output.model), start.lineage)
    start.state.remove()
