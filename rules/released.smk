"""From evaluation results that already exist to scores."""

from workflow.released import runs


localrules:
    adopt,


wildcard_constraints:
    released="[^/]+",


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
        runs.input_files(block, root), runs.place_of(block, root)
    )


def reader_code(wildcards):
    """How the released files are read."""
    reader = f"released/readers/{released(wildcards)['reader']}"
    return content_hashes.of_code(
        reader, "released/runs", "released/score_rows", "evaluation/metric_names"
    )


rule adopt:
    """Read evaluation results that already exist into the tables of a study."""
    output:
        scores="results/imported/import={released}/part.parquet",
        rows="results/imported/import={released}/items.parquet",
        files="results/imported/import={released}/files.parquet",
    log:
        "logs/adopt/{released}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        released=released,
        folder=released_folder,
        root=given_folder(STUDY["released_root"]),
        files=released_contents,
        code=reader_code,
        families=list(STUDY["families"]),
    script:
        "../workflow/scripts/adopt.py"
