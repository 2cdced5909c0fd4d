"""Tune a base on a task in a format by a recipe with a seed."""

from workflow.jobs import clock, job, progress

from pathlib import Path

import torch

from workflow import models, sharding, sources, states, tables, task, tuning
from workflow.encoding import context_length, padding

with job("tune", snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    keys, recipe = dict(snakemake.wildcards.items()), snakemake.params.recipe
    seed, base = int(keys["seed"]), sources.read_base(snakemake.input.base)
    sources.import_model(base["path"])
    log.info("imported: %s", clock())
    spread = recipe["gpus"] > 1
    model, tokenizer = models.untouched(base, place="cpu" if spread else None)
    log.info("base %s; %s", base["path"], models.describe())
    log.info("loaded: %s", clock())
    read, train, _ = task.examples(keys["train"], Path(snakemake.input.task))
    drawn, _ = tuning.divided(train, recipe)
    rows = list(tuning.prepared_rows(tokenizer, context_length(model), read, drawn, keys["format"], recipe).values())
    counts = {"examples": len(rows), "dropped": len(drawn) - len(rows)}
    log.info("%(examples)d examples; %(dropped)d dropped, since their cut left no token to learn", counts)
    facts = {"base": base["files"], "recipe": recipe, "seed": seed}
    state = states.State(Path(snakemake.params.state), tuning.fingerprint(facts, rows))
    model = tuning.adapted(model, recipe, seed) if recipe["method"] == "lora" else model
    lineage = keys | {"recipe_settings": recipe, "base": sources.identity(base)} | counts
    record = Path(snakemake.params.record)
    record.unlink(missing_ok=True)
    try:
        tune = sharding.tune if spread else tuning.tune
        history = tune(model, rows, recipe, seed, padding(tokenizer), state, progress(log, "tune"))
    except tuning.DivergedError as error:
        tables.write(error.history, tables.HISTORY, record, **lineage, error=str(error))
        raise
    tables.write(history, tables.HISTORY, Path(snakemake.output.history), **lineage)
    models.save(model, tokenizer, Path(snakemake.output.model), lineage)
    state.remove()
