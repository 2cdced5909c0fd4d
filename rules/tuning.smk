"""From bases to fine-tuned models; where a recipe lists learning rates, one is chosen first."""

import os

from workflow.data import prompts
from workflow.storage import tables
from workflow.training import learning_rate_search


localrules:
    choose,


CHOICES = TRIALS[grid.CHOICE_KEYS].drop_duplicates()
CHOSEN = ["results/choices.parquet"] if len(CHOICES) else []


def rates(wildcards):
    """The learning rates that a recipe chooses from."""
    return STUDY["recipes"][wildcards.recipe]["learning_rate"]


def trial_recipe(wildcards):
    """A recipe at the learning rate of one trial."""
    return grid.at_rate(
        STUDY["recipes"][wildcards.recipe], rates(wildcards)[int(wildcards.rate)]
    )


def trial_parts(wildcards):
    """The trials that a choice is made from."""
    meant = tuple(getattr(wildcards, key) for key in grid.CHOICE_KEYS)
    rows = TRIALS.groupby(grid.CHOICE_KEYS).get_group(meant)
    return parts("trials", grid.TRIAL_KEYS, rows)


def choice(wildcards):
    """The choice that a model's learning rate comes from; none where its recipe has a single one."""
    if "search" not in STUDY["recipes"][wildcards.recipe]:
        return []
    # Ancient, since not the file counts but the rate in it, which is a parameter: the same choice made anew costs nothing.
    place = grid.path(wildcards, grid.CHOICE_KEYS)
    return [ancient(f"results/choices/{place}/part.parquet")]


def recipe(wildcards):
    """The recipe that a model is tuned by, at the chosen learning rate where it lists several."""
    found = grid.recipe_for(STUDY, wildcards.recipe, wildcards.train)
    made = choice(wildcards)
    if not made:
        return found
    # A choice that is there is read before Snakemake knows whether it will be made anew: an unknown rate would count as
    # changed and have the model predicted again. Once made, this is asked again.
    if not os.path.exists(made[0]):
        checkpoints.choose.get(**wildcards)
    return grid.at_rate(found, learning_rate_search.chosen_rate(tables.rows(made[0])))


def tuning_prompts(wildcards):
    """The words around the rows that a model is tuned on."""
    return prompts.tuned_on(task.load(wildcards.train), wildcards.format)


def weights(folder):
    """Folders of tuned weights as an output: to stay, or to be removed once their last prediction is made."""
    return directory(folder) if STUDY["keep_weights"] else temp(directory(folder))


rule try_rate:
    """Tune a base by one of the listed learning rates, with seed 0, and measure held-out rows."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        task="resources/tasks/{train}.parquet",
    output:
        f"results/trials/{TRIAL}/part.parquet",
    log:
        f"logs/try_rate/{TRIAL}.log",
    benchmark:
        f"results/benchmarks/try_rate/{TRIAL}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        **needs.asked(STUDY, needs.tuning),
        gpu=gpus,
    params:
        recipe=trial_recipe,
        prompts=tuning_prompts,
        folder=base_folder,
        state=f"resources/states/trials/{TRIAL}.safetensors",
        record=f"results/diverged/trials/{TRIAL}/part.parquet",
    script:
        "../workflow/scripts/try_rate.py"


checkpoint choose:
    """Choose the learning rate with the lowest loss on held-out rows."""
    input:
        trials=trial_parts,
    output:
        f"results/choices/{CHOICE}/part.parquet",
    log:
        f"logs/choose/{CHOICE}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        rates=rates,
        statistics=STUDY["statistics"],
    script:
        "../workflow/scripts/choose.py"


rule tune:
    """Tune a base on a task in a format by a recipe with a seed."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        task="resources/tasks/{train}.parquet",
        choice=choice,
    output:
        model=weights(f"resources/models/{MODEL}"),
        checksums=checksums.place(pathlib.Path(f"resources/models/{MODEL}")),
        history=f"results/histories/{MODEL}/part.parquet",
    log:
        f"logs/tune/{MODEL}.log",
    benchmark:
        f"results/benchmarks/tune/{MODEL}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        **needs.asked(STUDY, needs.tuning),
        gpu=gpus,
    params:
        recipe=recipe,
        prompts=tuning_prompts,
        folder=base_folder,
        state=f"resources/states/{MODEL}.safetensors",
        record=f"results/diverged/{MODEL}/part.parquet",
    script:
        "../workflow/scripts/tune.py"
