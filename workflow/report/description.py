"""Description of a study for the first page of its report: what it covers, what is missing, package versions."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pandas as pd

from workflow.models import checkpoints
from workflow.report.pages import plain
from workflow.settings import Study
from workflow.study import grid

PACKAGES = (*("snakemake", "numpy", "pandas", "matplotlib"), *("torch", "transformers", "peft", "datasets", "pyarrow"))
LONGEST = 120  # characters of a missing item; the first page of the report is short
MOST = 3
LACKING = ("missing_cells",)  # checks of the audit that report missing cells


def describe(study: Study, analysis: pd.DataFrame, audit: pd.DataFrame) -> str:
    """The description in reStructuredText; analysis, audit: the study's tables."""
    parts = {
        "Families": list(_families(study, analysis)),
        "Tuned": list(_models(study)),
        "Tested": list(_suites(study)),
        "Missing": list(_missing(study, audit)) or ["nothing"],
        "Made by": [
            ", ".join(f"{name} {version(name)}" for name in PACKAGES) + f"; Python {platform.python_version()}"
        ],
    }
    blocks = [
        f"**{name}**\n\n" + "\n".join(f"- {plain(text)}" for text in texts) for name, texts in parts.items() if texts
    ]
    return "\n\n".join(["Tunecast: pre-training checkpoints before and after fine-tuning.", *blocks]) + "\n"


def _families(study: Study, analysis: pd.DataFrame) -> Iterator[str]:
    """Each family with its source and steps; those of imported scores by the steps that occur."""
    for name, family in study["families"].items():
        steps = checkpoints.steps(name, family)
        yield f"{name}: {family['source']}, {_listed('step', steps)}"
    rows = analysis[(analysis["analysis"] == "performance") & ~analysis["family"].isin(list(study["families"]))]
    for name, members in rows.groupby("family"):
        yield f"{name}: released scores, {_listed('step', sorted(members['step'].unique()))}"
    for name, cohort in study["cohorts"].items():
        if "path" in cohort:
            yield f"{name}: a table of bases, {cohort['path']}"


def _models(study: Study) -> Iterator[str]:
    """Each recipe with the tasks that are fine-tuned with it."""
    models = grid.models(study)
    for recipe, members in models[models["recipe"] != "none"].groupby("recipe", sort=False):
        keys = {"task": "train", "format": "format", "seed": "seed"}
        parts = [_listed(noun, members[key].unique()) for noun, key in keys.items()]
        method = "tuned elsewhere" if recipe in study["adopted"] else study["recipes"][recipe]["method"]
        yield f"by {recipe} ({method}), {len(members)} models: {'; '.join(parts)}"


def _suites(study: Study) -> Iterator[str]:
    """Each suite with its tests, formats and shots."""
    for name, suite in study["suites"].items():
        tests = grid.suite_tests(suite, "none")
        ways = f"{_listed('format', suite['formats'])}; shots {', '.join(map(str, suite['shots']))}"
        limit = f"; {suite['limit']} rows at most" if "limit" in suite else ""
        yield f"{name} ({suite['protocol']}): {_listed('test', tests)}; {ways}{limit}"


def _missing(study: Study, audit: pd.DataFrame) -> Iterator[str]:
    """Steps that the study leaves out, and missing cells that the audit reports."""
    for name, family in study["families"].items():
        used = checkpoints.steps(name, family)
        saved = {step for step in family.get("pretraining", {}).get("save", []) if step < max(used)}
        if left := sorted(saved - set(used)):
            yield f"{name}: {_listed('step', left)} saved, but not in the steps of the study"
    lacking = audit.loc[audit["check"].isin(LACKING), "evidence"].tolist()
    for evidence in lacking[:MOST]:
        yield textwrap.shorten(evidence, LONGEST, placeholder=" …")
    if len(lacking) > MOST:
        yield f"{len(lacking) - MOST} more findings of the audit"


def _listed(noun: str, values: Any) -> str:
    """Values after their noun."""
    names = [str(value) for value in values]
    return f"{noun}{'' if len(names) == 1 else 's'} {', '.join(names)}"
