"""Inputs and parameters of the rules in reporting.smk."""

import os
import pathlib

from workflow import registry
from workflow.errors import StudyError
from workflow.planning import costs
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
    *CHOSEN_OWN,
    *FORGOTTEN,
    *(["results/scores.parquet"] if RECOMMENDED else []),
    *(path for path in SUMMARISED if path.endswith("gpu_hours.csv")),
]


# What the page is made of: findings, what they are made of, all tables and the histories of fine-tuning.
PAGE_TABLES = list(
    dict.fromkeys(
        [
            "results/findings.parquet",
            "results/scores.parquet",
            *TABLES,
            *SUMMARISED,
            *(["results/histories.parquet"] if STUDY["models"] else []),
        ]
    )
)


def known_parameters():
    """Parameters of the bases of each family that the config tells of; others have no axis of FLOPs."""
    known = {}
    for family in STUDY["families"]:
        try:
            known[family] = float(costs.parameters_of(STUDY, family))
        except StudyError:
            continue
    return known


def page_code():
    """How the page is made."""
    folder = pathlib.Path(workflow.basedir) / "workflow/report/page"
    modules = [f"report/page/{path.stem}" for path in sorted(folder.glob("*.py"))]
    assets = [
        f"report/page/{path.name}"
        for kind in ("*.j2", "*.css", "*.js")
        for path in sorted(folder.glob(kind))
    ]
    return content_hashes.of_code(*modules, *assets, "report/page.js", "analysis/power")


def figure_tables(wildcards):
    """The tables that a figure reads beside scores and analysis; most read none."""
    further = "READS" in registry.defined(registry.path(figures, wildcards.figure))
    names = registry.constant(figures, wildcards.figure, "READS") if further else ()
    return [f"results/{name}.parquet" for name in names]


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
