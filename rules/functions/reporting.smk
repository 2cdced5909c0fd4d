"""Inputs and parameters of the rules in reporting.smk."""

import os

from workflow import registry
from workflow.report import figures, findings, summaries
from workflow.storage import files

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
    return content_hashes.of_code(
        *registry.sources(figures, wildcards.figure),
        "report/figures/style.mplstyle",
        "report/drawing",
        "report/selection",
    )


def summary_code(wildcards):
    """How a table is made."""
    return content_hashes.of_code(
        f"report/summaries/{wildcards.summary}",
        "report/summaries/__init__",
        "storage/markdown",
    )


def summary_settings(wildcards):
    """The part of the config that a summary reads."""
    keys = registry.constant(summaries, wildcards.summary, "READS")
    return {key: STUDY[key] for key in keys}
