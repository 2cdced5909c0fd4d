"""Tune a base by one of a recipe's learning rates and measure validation rows; the weights are not kept."""

from workflow.jobs import clock, job, progress

from pathlib import Path

import torch

from workflow import models, sharding, sources, states, tables, task, tuning
from workflow.encoding import context_length, padding

SEED = 0

with job("try_rate", snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    keys, recipe = dict(snakemake.wildcards.items()), snakemake.params.recipe
    base = sources.read_base(snakemake.input.base)
    sources.import_model(base["path"])
    log.info("imported: %s", clock())
    spread = recipe["gpus"] > 1
    model, tokenizer = models.untouched(base, place="cpu" if spread else None)
    log.info("base %s; %s", base["path"], models.describe())
    log.info("loaded: %s", clock())
    read, train, _ = task.examples(keys["train"], Path(snakemake.input.task))
    context, divided = context_length(model), tuning.divided(train, recipe)
    learned, held = (tuning.prepared_rows(tokenizer, context, read, part, keys["format"], recipe) for part in divided)
    rows = list(learned.values())
    counts = {"examples": len(rows), "validation": len(held), "dropped": sum(map(len, divided)) - len(rows) - len(held)}
    log.info(
        "%(examples)d examples, %(validation)d validation rows; %(dropped)d dropped without a token to learn", counts
    )
    facts = {"base": base["files"], "recipe": recipe, "seed": SEED}
    state = states.State(Path(snakemake.params.state), tuning.fingerprint(facts, rows))
    model = tuning.adapted(model, recipe, SEED) if recipe["method"] == "lora" else model
    report = progress(log, "try_rate")
    tried = sharding.tried if spread else tuning.tried
    losses = tried(model, rows, list(held.values()), recipe, SEED, padding(tokenizer), state, report)
    lost = sum(loss["loss"] is None for loss in losses)
    log.info("learning rate %g: %d of %d validation losses not finite", recipe["learning_rate"], lost, len(losses))
    trial = {"learning_rate": recipe["learning_rate"]}
    parts = [{"id": name, **trial, **loss} for name, loss in zip(held, losses, strict=True)]
    lineage = keys | {"recipe_settings": recipe, "base": sources.identity(base), "seed": SEED} | counts
    tables.write(parts, tables.TRIALS, Path(snakemake.output[0]), **lineage)
    state.remove()
