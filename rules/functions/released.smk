"""Inputs and parameters of the rules in released.smk."""

from workflow import registry
from workflow.released import readers, runs

IMPORTED = [f"results/imported/import={name}/part.parquet" for name in STUDY["imports"]]
IMPORTED_ROWS = [path.replace("part.parquet", "items.parquet") for path in IMPORTED]
IMPORTED_FILES = [path.replace("part.parquet", "files.parquet") for path in IMPORTED]


def released(wildcards):
    """What is imported: the reader and how its rows are named here."""
    block = STUDY["imports"][wildcards.released]
    return {key: value for key, value in block.items() if key != "path"}


def released_folder(wildcards):
    """The folder of the released files, as the config names it."""
    return given_folder(STUDY["imports"][wildcards.released]["path"])


def released_contents(wildcards):
    """What the released files hold that an import reads, by their places in its folder."""
    block, root = STUDY["imports"][wildcards.released], STUDY["released_root"]
    return content_hashes.of_files(
        runs.input_files(block, root), runs.folder_of(block, root)
    )


def reader_code(wildcards):
    """How the released files are read."""
    reader = registry.sources(readers, released(wildcards)["reader"])
    return content_hashes.of_code(
        *reader, "released/runs", "released/score_rows", "evaluation/metric_names"
    )
