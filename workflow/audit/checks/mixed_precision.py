"""Compared scores that differ in precision, package versions or size of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import AuditInputs, finding, listed
from workflow.settings import Base
from workflow.study import grid

PACKAGES = ("torch", "transformers")  # their versions change the last digits of log-probabilities
RATIO = 1.5  # of sizes: half the precision is half the size; vocabularies and heads change less


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """Warnings for different versions within a suite and bases of different size; a note for suites of different precision."""
    cells = [keys | _facts(facts) for keys, facts in material.settings]
    table = pd.DataFrame(cells, columns=[*grid.CELL_KEYS, "precision", "tests", *PACKAGES])
    for package in PACKAGES:
        for _, rows in table.drop_duplicates([*grid.CELL_KEYS, package]).groupby("suite"):
            if rows[package].nunique() > 1:
                parts = [f"{version} for {len(members)}" for version, members in rows.groupby(package)]
                evidence = (
                    f"{len(rows)} compared cells were predicted by different versions of {package}: {listed(parts)}"
                )
                yield finding("warning", rows, evidence, value=float(len(parts)), limit=1.0, n=len(rows))
    yield from _suites(table)
    yield from _sizes(material.bases())


def _facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Precision, tests and package versions of a cell."""
    suite, versions = facts["suite_settings"], facts["versions"]
    return {"precision": suite["precision"], "tests": tuple(suite["tests"])} | {
        name: versions[name] for name in PACKAGES
    }


def _suites(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Tests that suites compute in different precisions."""
    tests = table.explode("tests").rename(columns={"tests": "test"})
    for test, rows in tests.groupby("test"):
        if rows["precision"].nunique() > 1:
            parts = [f"{precision} in {listed(members['suite'])}" for precision, members in rows.groupby("precision")]
            keys = pd.DataFrame([{"test": test}])
            evidence = f"scores of {test} are computed in {listed(parts)}; compare within suites only"
            yield finding("note", keys, evidence, value=float(len(parts)), limit=1.0, n=len(rows))


def _sizes(bases: list[Base]) -> Iterator[dict[str, Any]]:
    """Families whose bases differ in precision, judged by the bytes of their weights."""
    rows = [
        {
            "family": base["family"],
            "step": base["step"],
            "size": sum(file["bytes"] for name, file in base["files"].items() if name.endswith(".safetensors")),
        }
        for base in bases
    ]
    for _, family in pd.DataFrame(rows, columns=["family", "step", "size"]).groupby("family"):
        ratio = family["size"].max() / family["size"].min()
        if ratio > RATIO:
            parts = [f"{size / 1e6:.1f} MB at {listed(members['step'])}" for size, members in family.groupby("size")]
            evidence = (
                f"sizes of the bases' weights differ {ratio:.1f}-fold, so do precision or architecture: {listed(parts)}"
            )
            yield finding("warning", family, evidence, value=float(ratio), limit=RATIO, n=len(family))
