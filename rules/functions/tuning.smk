"""Inputs and parameters of the rules in tuning.smk."""

import os

from workflow.data import prompts
from workflow.storage import tables
from workflow.training import learning_rate_search

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
