"""From analyses to figures, tables, findings and the report."""

import os

from workflow import registry
from workflow.report import findings, summaries
from workflow.storage import files


localrules:
    draw,
    summarise,
    find,
    present,
    report,


ruleorder: tabulate > compare > recommend > summarise


wildcard_constraints:
    summary="[^/]+",


SUMMARISED = expand(
    "results/tables/{table}.csv",
    table=STUDY["summaries"] + LEADERBOARDS,
)


# What findings are made of.
TABLES = [
    "results/analysis.parquet",
    "results/audit.parquet",
    *FORECASTED,
    *INDICATORS,
    *RECOMMENDED,
    *(["results/scores.parquet"] if RECOMMENDED else []),
    *(path for path in SUMMARISED if path.endswith("gpu_hours.csv")),
]


def figure_code(wildcards):
    """How a figure is drawn."""
    folder = "report/figures"
    return content_hashes.of_code(
        f"{folder}/{wildcards.figure}", "report/drawing", f"{folder}/style.mplstyle"
    )


def summary_code(wildcards):
    """How a table is made."""
    return content_hashes.of_code(
        f"report/summaries/{wildcards.summary}", "report/summaries/__init__"
    )


def summary_settings(wildcards):
    """The part of the config that a summary reads."""
    keys = registry.constant(summaries, wildcards.summary, "READS")
    return {key: STUDY[key] for key in keys}


rule draw:
    """Draw one figure, as PDF and PNG."""
    input:
        scores="results/scores.parquet",
        analysis="results/analysis.parquet",
    output:
        pdf="results/figures/{figure}.pdf",
        png="results/figures/{figure}.png",
    log:
        "logs/draw/{figure}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        overlays=STUDY["overlays"],
        code=figure_code,
    script:
        "../workflow/scripts/draw.py"


rule summarise:
    """Make one table of a study, as CSV in full precision and as Markdown to read."""
    input:
        scores="results/scores.parquet",
        analysis="results/analysis.parquet",
        bases=MANIFESTS,
        tasks=PREPARED,
    output:
        csv="results/tables/{summary}.csv",
        markdown="results/tables/{summary}.md",
    log:
        "logs/summarise/{summary}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        study=summary_settings,
        code=summary_code,
    script:
        "../workflow/scripts/summarise.py"


rule find:
    """State in words what the tables show, by fixed rules."""
    input:
        tables=TABLES,
    output:
        "results/findings.parquet",
    log:
        "logs/find.log",
    conda:
        "../envs/analysis.yaml"
    params:
        level=STUDY["statistics"]["level"],
        groups=STUDY["groups"],
        targets=own_cohort.questions(STUDY),
        code=content_hashes.of_code(
            "report/findings/__init__",
            *(f"report/findings/{kind}" for kind in registry.modules(findings)),
        ),
    script:
        "../workflow/scripts/find.py"


rule present:
    """Make the pages of the report: findings, figures with captions, tables that sort."""
    input:
        tables=["results/findings.parquet", TABLES, SUMMARISED],
        figures=expand("results/figures/{figure}.png", figure=STUDY["figures"]),
        vector=expand("results/figures/{figure}.pdf", figure=STUDY["figures"]),
    output:
        pages=report(
            directory("results/pages"),
            patterns=["{chapter}/{page}.html"],
            category="{chapter}",
            labels={"page": "{page}"},
            caption="../workflow/report/caption.rst",
        ),
        captions="results/captions.rst",
        description="results/description.rst",
    log:
        "logs/present.log",
    conda:
        "../envs/analysis.yaml"
    params:
        study=files.portable(STUDY),  # a report shows the parameters of what made it
        captions=pathlib.Path("results/captions.rst"),
        code=content_hashes.of_code(
            "report/pages",
            "report/presenting",
            "report/description",
            "report/page.css",
            "report/page.js",
        ),
    script:
        "../workflow/scripts/present.py"


rule report:
    """Make the report of a study that has run: one HTML file that answers without a terminal, results/report.html."""
    input:
        rules.present.output,
    output:
        "results/report.html",
    log:
        "logs/report.log",
    conda:
        "../envs/analysis.yaml"
    params:
        snakefile=os.path.relpath(workflow.main_snakefile),
    script:
        "../workflow/scripts/report.py"
