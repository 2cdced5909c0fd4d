"""One module for each kind of finding: `find(material)` makes short statements by a fixed rule from the tables of a study.

A module also names its SECTION of the report and the tables that it READS; of a study that lacks one of them it finds
nothing. A finding is a row of `tables.FINDINGS`: it is about one row of a table, which its filter names. Its sentence may
quote that row's siblings, rows that differ from it in the estimator alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from workflow import drawing, grid, tables
from workflow.report.sections import SECTIONS
from workflow.statistics import NORMAL, holm, student_tail, student_width

ANALYSIS = "analysis"
TEST_WAY = [*drawing.PLACE, *drawing.WAY]
WEAKENING = ("error", "warning")


@dataclass(frozen=True)
class Material:
    """What findings are made of. tables: by name, as under `results/`; level: coverage of the intervals."""

    tables: Mapping[str, pd.DataFrame]
    level: float

    @cached_property
    def analysis(self) -> pd.DataFrame:
        """The analysis table, every row the study's own."""
        return drawing.overlaid(self.tables[ANALYSIS], {})

    @cached_property
    def ways(self) -> pd.DataFrame:
        """The main way in which each family's suite tests (`drawing.chosen`): columns family, suite, test_format, shots."""
        return drawing.only(self.analysis, "performance")[TEST_WAY].drop_duplicates()

    def rows(self, analysis: str, *estimators: str, missing: bool = False) -> pd.DataFrame:
        """The rows with a value of one analysis, by some or all of its estimators, in the main way of testing.

        Of tuned models those that are tested in the format they were tuned in. missing: rows without a value as well.
        """
        rows = self.analysis[(self.analysis["analysis"] == analysis) & (self.analysis["value"].notna() | missing)]
        rows = rows[rows["estimator"].isin(estimators)] if estimators else rows
        own = rows["format"].isna() | (rows["format"] == "none") | (rows["format"] == rows["test_format"])
        return rows[own].merge(self.ways, on=TEST_WAY)

    def last(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows at the last step of their family."""
        return rows[rows["step"] == rows.groupby("family")["step"].transform("max")]

    def told(self, rows: pd.DataFrame, pooled: bool = False) -> pd.Series:
        """Whether each value can be told from 0, all rows considered together.

        Holm's step-down procedure (1979) on p-values of a normal distribution as wide as the interval: a bootstrap of a
        thousand resamples has no p-values as small as many rows ask for. Rows without an interval cannot be told.
        pooled: whether n counts tests (pairs) that were resampled, of which few spread less in resamples than they do: their
        error is made whole and the distribution Student's t.
        """
        error = (rows["high"] - rows["low"]).astype(float) / (2 * student_width(self.level, NORMAL))
        values = rows["value"].astype(float)
        # The mean of a single test is about that test: only its rows and seeds were resampled.
        counts = [int(n) if n > 1 else None for n in rows["n"]] if pooled else [None] * len(rows)
        freedom = [NORMAL if n is None else n - 1 for n in counts]
        error = error * [1.0 if n is None else (n / (n - 1)) ** 0.5 for n in counts]
        exact = {True: 0.0, False: 1.0}
        p = [
            1.0 if pd.isna(e) else student_tail(v / e, f) if e > 0 else exact[v != 0]
            for v, e, f in zip(values, error, freedom, strict=True)
        ]
        return pd.Series(holm(np.array(p)) < 1 - self.level, index=rows.index)

    def interval(self, row: Mapping[str, Any], form: str = ".3f") -> str:
        """A value with its interval, for a sentence."""
        value = signed(row["value"], form)
        if pd.isna(row["low"]):
            return f"{value} (no interval)"
        return f"{value} ({self.level:.0%} {signed(row['low'], form)} to {signed(row['high'], form)})"


def signed(value: float, form: str = ".3f") -> str:
    """A number with a proper minus sign; a zero without a sign."""
    text = format(value, form)
    return text.removeprefix("-") if not any(digit in text for digit in "123456789") else text.replace("-", "−")


def kinds(there: Sequence[str]) -> list[str]:
    """The kinds of findings that can be made from some tables."""
    import workflow.findings as package

    return [name for name in grid.modules(package) if set(grid.module(package, name).READS) <= set(there)]


def found(material: Material, audit: pd.DataFrame) -> list[dict[str, Any]]:
    """All findings, rows of `tables.FINDINGS`, by section, each with what in the audit weakens it."""
    import workflow.findings as package

    rows = []
    for name in kinds(list(material.tables)):
        module = grid.module(package, name)
        rows += [
            {"section": module.SECTION, "finding": name, **row} for row in module.find(material)
        ]  # some name their own
    rows.sort(key=lambda row: list(SECTIONS).index(row["section"]))
    return [{**row, "warnings": weakened(json.loads(row["filter"]), row["section"], audit)} for row in rows]


def finding(
    statement: str, row: Mapping[str, Any], keys: Sequence[str], table: str = ANALYSIS, **own: Any
) -> dict[str, Any]:
    """A finding about one row of a table. keys: the columns that name it, null ones among them; own: other figures."""
    known = {key: None if pd.isna(row[key]) else row[key] for key in keys}
    conditions = {key: value.item() if isinstance(value, np.generic) else value for key, value in known.items()}
    figures = {name: row.get(name) for name in ("value", "low", "high", "n")} | own
    clean = {name: None if pd.isna(figure) else float(figure) for name, figure in figures.items()}
    if clean["n"] is not None:
        clean["n"] = int(clean["n"])
    return {"statement": statement, **clean, "table": table, "filter": json.dumps(conditions, ensure_ascii=False)}


def weakened(conditions: Mapping[str, Any], section: str, audit: pd.DataFrame) -> list[str]:
    """The audit's errors and warnings about the same thing: none of their keys differs from those of the filter.

    Against a finding about a task or a test stands what the audit says of that task or test; what it says of a whole suite
    stands against what is pooled. Where one says nothing of a key it is taken to be about all of them; a finding about no
    family is weakened by what the audit says about no family, and only by that.
    """
    rows = audit[audit["severity"].isin(WEAKENING)]
    rows = rows[rows["family"].notna() == ("family" in conditions)]
    if "family" not in conditions and section != "forecasts":
        return []
    for key in (name for name in tables.AUDIT_KEYS if conditions.get(name) is not None):
        rows = rows[rows[key].isna() | (rows[key] == conditions[key])]
    named = [key for key in ("train", "test") if conditions.get(key) not in (None, "none")]
    if named:
        rows = rows[rows[named].notna().any(axis=1)]
    return [f"{row.severity}, {row.check}: {row.evidence}" for row in rows.itertuples()]


def about(rows: pd.DataFrame, row: Mapping[str, Any], *more: str) -> str:
    """What a sentence has to add so that it is about one row: family and suite where the rows have several of them, other
    keys where the rows of the same task tuned on have."""
    alike = rows[rows["train"] == row["train"]] if more and not pd.isna(row["train"]) else rows
    several = [key for key in ("family", "suite") if rows[key].nunique() > 1]
    several += [key for key in more if alike[key].nunique() > 1]
    names = [str(row[key]) for key in several if not pd.isna(row[key]) and row[key] != "none"]
    return f" ({', '.join(names)})" if names else ""


def siblings(
    rows: pd.DataFrame, row: Mapping[str, Any], keys: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows that share all keys with a row but the estimator: estimator, row."""
    conditions = {key: row[key] for key in keys if key != "estimator"}
    for _, other in tables.matching(rows, conditions).iterrows():
        yield other["estimator"], other
