"""Evaluation results that already exist."""


include: "functions/released.smk"


localrules:
    adopt,
    export,


wildcard_constraints:
    released="[^/]+",


rule adopt:
    """Read existing evaluation results into the tables of a study."""
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


rule export:
    """Write all scores and scored rows to results/export, for lm-evaluation-harness and Every Eval Ever."""
    input:
        scores="results/scores.parquet",
        rows="results/items.parquet",
    output:
        directory("results/export"),
    log:
        "logs/export.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=content_hashes.of_code("released/exporting"),
    script:
        "../workflow/scripts/export.py"
