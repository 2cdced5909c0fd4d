"""What rules of several files share: patterns of paths, inputs whose content counts, bases and GPUs."""

import pathlib

from workflow.data import corpora
from workflow.storage import checksums

# Snakemake has `checkpoints` as a name of its own.
from workflow.models import checkpoints as base_checkpoints
from workflow.planning import resources as needs
from workflow.storage import content_hashes

BASE = grid.pattern(grid.BASE_KEYS)
MODEL = grid.pattern(grid.MODEL_KEYS)
PART = grid.pattern(grid.PART_KEYS)
TRIAL = grid.pattern(grid.TRIAL_KEYS)
CHOICE = grid.pattern(grid.CHOICE_KEYS)
OWN_CHOICE = grid.pattern(grid.OWN_CHOICE_KEYS)


wildcard_constraints:
    step=r"\d+",
    seed=r"\d+",
    rate=r"\d+",


PREPARED = expand("resources/tasks/{task}.parquet", task=grid.tasks(STUDY))
MANIFESTS = [
    f"resources/bases/{grid.path(base, grid.BASE_KEYS)}/base.json"
    for base in grid.bases(STUDY).to_dict("records")
]


def parts(folder, keys, rows):
    """The part of each row of a grid table under a folder of results."""
    return [
        f"results/{folder}/{grid.path(row, keys)}/part.parquet"
        for row in rows.to_dict("records")
    ]


def noted(folder):
    """A folder that a job makes as an input: what counts is its content, as its checksums tell, and not its date."""
    return [ancient(folder), str(checksums.place(pathlib.Path(folder)))]


def given_folder(path):
    """A folder of the user's as a param that is not compared; none where the config names none."""
    return None if path is None else pathlib.Path(path)


def given_texts(block, split):
    """The files of a split of a corpus of the user's; none of a corpus that another job makes."""
    if corpora.made(block["corpus"]):
        return []
    return corpora.files(
        corpora.folder(block, STUDY["data_root"]), block.get("domains"), split
    )


def base_folder(wildcards):
    """Where a base of a local folder lies; none of others."""
    family = STUDY["families"][wildcards.family]
    return base_checkpoints.folder(wildcards.family, family, int(wildcards.step))


def gpus(wildcards):
    """The GPUs that a recipe spreads a tuning over, or a suite a prediction."""
    return grid.gpus(STUDY, dict(wildcards.items()))
