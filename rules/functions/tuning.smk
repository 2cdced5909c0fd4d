"""Inputs and parameters of the rules in tuning.smk."""

import os
import re

from workflow.data import prompts
from workflow.models import tuned_elsewhere
from workflow.storage import files, tables
from workflow.study import adopted
from workflow.training import learning_rate_search

# Searches of one learning rate for a family, and of one for each base.
EACH_BASE = TRIALS["recipe"].map(lambda name: grid.searches_each_base(STUDY, name))
CHOICES = TRIALS.loc[~EACH_BASE.astype(bool), grid.CHOICE_KEYS].drop_duplicates()
OWN_CHOICES = TRIALS.loc[EACH_BASE.astype(bool), grid.OWN_CHOICE_KEYS].drop_duplicates()
CHOSEN = ["results/choices.parquet"] if len(CHOICES) else []
CHOSEN_OWN = ["results/own_choices.parquet"] if len(OWN_CHOICES) else []


def rates(wildcards):
    """The learning rates that a recipe chooses from."""
    return STUDY["recipes"][wildcards.recipe]["learning_rate"]


def with_replay(wildcards, settings):
    """A recipe with the text that it replays: where it is from, and what it holds if it is the user's."""
    text = grid.replayed_text(STUDY, wildcards.recipe, wildcards.family)
    if text is None:
        return settings
    contents = content_hashes.of_files(given_texts(text, text["split"]))
    return {**settings, "replayed": {**text, "contents": contents}}


def replay_texts(wildcards):
    """The text that a recipe replays, where another job makes it."""
    text = grid.replayed_text(STUDY, wildcards.recipe, wildcards.family)
    made = corpora.made(text["corpus"]) if text else None
    return noted(made) if made else []


def trial_recipe(wildcards):
    """A recipe at the learning rate of one trial."""
    found = grid.recipe_for(STUDY, wildcards.recipe, wildcards.train)
    settings = grid.at_rate(found, rates(wildcards)[int(wildcards.rate)])
    return with_replay(wildcards, settings)


def trial_parts(wildcards):
    """The trials that a choice is made from."""
    meant = tuple(getattr(wildcards, key) for key in grid.CHOICE_KEYS)
    rows = TRIALS.groupby(grid.CHOICE_KEYS).get_group(meant)
    return parts("trials", grid.TRIAL_KEYS, rows)


def search_of(wildcards):
    """The keys of the search for a base's own learning rate."""
    return {key: str(getattr(wildcards, key)) for key in grid.OWN_CHOICE_KEYS}


def rate_trials(keys, indices):
    """The trials of some rates on a base."""
    return [
        f"results/trials/{grid.path({**keys, 'rate': index}, grid.TRIAL_KEYS)}/part.parquet"
        for index in indices
    ]


def narrowed(keys, number):
    """The facts of a round of a search; Snakemake makes the round first if it is not made."""
    made = checkpoints.narrow.get(**keys, round=str(number))
    return tables.recorded(made.output[0])


def first_rates(keys):
    """The rates that the search of a base begins with: around those chosen at the nearest steps that were searched before."""
    line = {key: value for key, value in keys.items() if key != "step"}
    steps = tables.matching(OWN_CHOICES, line)["step"]
    near = learning_rate_search.neighbours(steps)[int(keys["step"])]
    chosen = [
        tables.rows(checkpoints.choose_own.get(**keys | {"step": str(step)}).output[0])
        for step in near
    ]
    listed = STUDY["recipes"][keys["recipe"]]["learning_rate"]
    return learning_rate_search.first_tried(
        listed, map(learning_rate_search.chosen_rate, chosen)
    )


def round_trials(wildcards):
    """The trials up to a round of a search."""
    keys, number = search_of(wildcards), int(wildcards.round)
    if number == 1:
        return rate_trials(keys, first_rates(keys))
    before = narrowed(keys, number - 1)
    return rate_trials(keys, before["tried"] + before["next"])


def own_trials(wildcards):
    """All trials of a base's search: those of its last round."""
    keys, number = search_of(wildcards), 1
    while (facts := narrowed(keys, number))["next"]:
        number += 1
    return rate_trials(keys, facts["tried"])


def choice(wildcards):
    """The choice that a model's learning rate comes from; none where its recipe has a single one."""
    if "search" not in STUDY["recipes"][wildcards.recipe]:
        return []
    # Ancient, since not the file counts but the rate in it, which is a parameter: the same choice made anew costs nothing.
    own = grid.searches_each_base(STUDY, wildcards.recipe)
    place = grid.path(wildcards, grid.choice_keys(STUDY, wildcards.recipe))
    folder = "own_choices" if own else "choices"
    return [ancient(f"results/{folder}/{place}/part.parquet")]


def recipe(wildcards):
    """The recipe that a model is tuned by, at the chosen learning rate where it lists several."""
    found = with_replay(
        wildcards, grid.recipe_for(STUDY, wildcards.recipe, wildcards.train)
    )
    made = choice(wildcards)
    if not made:
        return found
    # A choice that is there is read before Snakemake knows whether it will be made anew: an unknown rate would count as
    # changed and have the model predicted again. Once made, this is asked again.
    if not os.path.exists(made[0]):
        own = grid.searches_each_base(STUDY, wildcards.recipe)
        (checkpoints.choose_own if own else checkpoints.choose).get(**wildcards)
    return grid.at_rate(found, learning_rate_search.chosen_rate(tables.rows(made[0])))


def training_rows(wildcards):
    """The prepared task that a model is tuned on; of a mix all of its tasks."""
    names = task.components(wildcards.train)
    found = [f"resources/tasks/{name}.parquet" for name in names]
    return found if len(found) > 1 else found[0]


def tuning_prompts(wildcards):
    """The words around the rows that a model is tuned on; of a mix, those of each task."""
    names = task.components(wildcards.train)
    words = {
        name: prompts.tuned_on(task.load(name), wildcards.format) for name in names
    }
    return words if len(words) > 1 else words[names[0]]


def weights(folder):
    """Folders of tuned weights as an output: to stay, or to be removed once their last prediction is made."""
    return directory(folder) if STUDY["keep_weights"] else temp(directory(folder))


ADOPTED = {
    grid.path(model.keys, grid.MODEL_KEYS): model for model in adopted.models(STUDY)
}
TUNED_ELSEWHERE = "|".join(map(re.escape, STUDY["adopted"])) or "(?!)"
TUNED_HERE = f"(?!(?:{TUNED_ELSEWHERE})/)[^/]+"
MODEL_PINS = [
    f"resources/pins/models/{path}.json"
    for path, model in ADOPTED.items()
    if model.repo
]


# What was found about each model as it was taken.
ADOPTED_RECORDS = [f"resources/adopted/{path}.json" for path in ADOPTED]


def adopted_model(wildcards):
    """A model that was tuned elsewhere."""
    return ADOPTED[grid.path(wildcards, grid.MODEL_KEYS)]


def adopted_source(wildcards):
    """Repository and revision of a model on the hub that was tuned elsewhere."""
    model = adopted_model(wildcards)
    return {"repo": model.repo, "revision": model.revision}


def adopted_pin(wildcards):
    """What is pinned of a model on the hub that was tuned elsewhere; none for others."""
    path = grid.path(wildcards, grid.MODEL_KEYS)
    return [f"resources/pins/models/{path}.json"] if ADOPTED[path].repo else []


def adopted_folder(wildcards):
    """The local folder of a model that was tuned elsewhere, as a param that is not compared."""
    return given_folder(adopted_model(wildcards).folder)


def adopted_families(wildcards):
    """The family that a model was tuned elsewhere from, by which the base is checked that its adapters name."""
    return {wildcards.family: STUDY["families"][wildcards.family]}


def adopted_contents(wildcards):
    """What tells the files of a local model that was tuned elsewhere from those that were there before."""
    folder = adopted_model(wildcards).folder
    path = grid.path(wildcards, grid.MODEL_KEYS)
    record = pathlib.Path(f"resources/adopted/{path}.json")
    return content_hashes.of_checkpoint(
        tuned_elsewhere.files(folder) if folder else [],
        files.json_object(record) if record.is_file() else None,
    )


def finished_model(wildcards):
    """The folder of a fine-tuned model, wherever it was tuned."""
    return noted(f"resources/models/{grid.path(wildcards, grid.MODEL_KEYS)}")
