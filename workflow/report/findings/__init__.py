"""One module for each kind of finding: `find(material)` makes short statements by a fixed rule from the tables of a study.

A module also names its SECTION of the report and the tables that it READS; of a study that lacks one of them it finds
nothing. A finding is a row of `tables.FINDINGS`: it is about one row of a table, which its filter names. Its sentence may
quote that row's siblings, rows that differ from it in the estimator alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from workflow import registry
from workflow.analysis.analyses.ratio_of_change import direction
from workflow.audit import checks
from workflow.evaluation import metric_names
from workflow.report import selection
from workflow.report.sections import SECTIONS
from workflow.statistics import NORMAL, POWER, detectable, holm, student_width
from workflow.storage import tables

ANALYSIS = "analysis"
TEST_WAY = [*selection.PLACE, *selection.WAY]
WEAKENING = ("error", "warning")
WEAKENED = ("answer", "base", "tuned", "transfer", "formats", "forecasts")  # sections whose findings are about scores
UNTOUCHED = {"train": "none", "format": "none", "recipe": "none", "seed": 0}


@dataclass(frozen=True)
class Material:
    """What findings are made of. tables: by name, as under `results/`; level: coverage of the intervals; groups: the study's;
    targets: of its own cohorts, those that are means over tests (`own_cohort.questions`)."""

    tables: Mapping[str, pd.DataFrame]
    level: float
    groups: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    targets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def analysis(self) -> pd.DataFrame:
        """The analysis table, every row the study's own; of tests that are part of a mean the mean alone, which says more."""
        rows = selection.overlaid(self.tables[ANALYSIS], {})
        return rows[~rows["test"].isin(metric_names.parts(self.tables["scores"]))] if "scores" in self.tables else rows

    @cached_property
    def ways(self) -> pd.DataFrame:
        """The main way in which each family's suite tests (`selection.chosen`): columns family, suite, test_format, shots."""
        return selection.only(self.analysis, "performance")[TEST_WAY].drop_duplicates()

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

    def significant(self, rows: pd.DataFrame) -> pd.Series:
        """Whether each value differs from 0, all rows considered together: Holm's procedure (1979) on the rows' own p-values.

        The p-values are of the same margins as the intervals. A row without one is not significant.
        """
        return pd.Series(holm(rows["p_value"].astype(float).fillna(1.0).to_numpy()) < 1 - self.level, index=rows.index)

    def detectable(self, rows: pd.DataFrame, pooled: bool = False) -> pd.Series:
        """The smallest true value that this study would have found significant with power .8, of each row; NaN without interval.

        At the level that Holm's procedure asks of the first of the rows that are not significant. pooled: whether n counts the
        units of Student's t (tests, pairs).
        """
        left = max(1, int((~self.significant(rows)).sum()))
        found = {}
        for place, row in rows.iterrows():
            freedom = max(1, row["n"] - 1) if pooled and pd.notna(row["n"]) and row["n"] > 1 else NORMAL
            half = np.nan if pd.isna(row["low"]) else float(row["high"] - row["low"]) / 2
            error = half / student_width(self.level, freedom)
            found[place] = detectable(error, 1 - (1 - self.level) / left, freedom)
        return pd.Series(found, index=rows.index, dtype=float)

    def verdicts(self, rows: pd.DataFrame, pooled: bool = False) -> pd.Series:
        """What a sentence adds to each value: significant or not, and of the latter what would have been found."""
        small, sure = self.detectable(rows, pooled), self.significant(rows)
        texts = ["significant (Holm)" if sure[place] else unseen(small[place]) for place in rows.index]
        return pd.Series(texts, index=rows.index, dtype=object)

    def interval(self, row: Mapping[str, Any], form: str = ".3f") -> str:
        """A value with its interval, for a sentence."""
        value = signed(row["value"], form)
        if pd.isna(row["low"]):
            return f"{value} (no interval)"
        return f"{value} ({ci(self.level)} {signed(row['low'], form)} to {signed(row['high'], form)})"


def ci(level: float) -> str:
    """What an interval is called: `95 % CI`."""
    return f"{100 * level:g} % CI"


def unseen(smallest: float) -> str:
    """The words for a value that is not significant. smallest: what would have been found, NaN where that is not known."""
    if pd.isna(smallest):
        return "not tested, since its uncertainty is unknown"
    if smallest > 1:  # more than a score between 0 and 1 can change
        change = "with so few units not even the largest possible change would"
    else:
        change = f"a change of {smallest:.3f} or more would"
    return f"not significant (Holm); {change} have been found (power {POWER:g})"


def one_seed(row: Mapping[str, Any]) -> str:
    """What a sentence about one seed adds, where no seed-to-seed variance is known; else nothing."""
    single = pd.notna(row["seed_variance"]) and not row["seed_variance"]
    return " One seed: this is about this tuned model; another seed may differ." if single else ""


def signed(value: float, form: str = ".3f") -> str:
    """A number with a proper minus sign; a zero without a sign."""
    text = format(value, form)
    return text.removeprefix("-") if not any(digit in text for digit in "123456789") else text.replace("-", "−")


def kinds(there: Sequence[str]) -> list[str]:
    """The kinds of findings that can be made from some tables."""
    import workflow.report.findings as package

    return [name for name in registry.modules(package) if set(registry.module(package, name).READS) <= set(there)]


def found(material: Material, audit: pd.DataFrame) -> list[dict[str, Any]]:
    """All findings, rows of `tables.FINDINGS`, by section, each with what in the audit weakens it."""
    import workflow.report.findings as package

    rows = []
    for name in kinds(list(material.tables)):
        module = registry.module(package, name)
        rows += [
            {"section": module.SECTION, "finding": name, **row} for row in module.find(material)
        ]  # some name their own
    rows.sort(key=lambda row: list(SECTIONS).index(row["section"]))
    warned = [weakened(sides(material, row), row["section"], audit) for row in rows]
    known = [{name: value for name, value in row.items() if name != "pairs"} for row in rows]
    return [{**row, "warnings": warnings} for row, warnings in zip(known, warned, strict=True)]


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


def sides(material: Material, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a finding rests on, each as conditions on the audit's keys: itself, the untouched base's side of a difference, and
    of a pooled value both sides of each pair of task and test in it. A finding may name its `pairs` itself."""
    known = json.loads(row["filter"])
    own = {key: value for key, value in known.items() if key in tables.AUDIT_KEYS}
    if row.get("pairs"):
        return [
            {key: value for key, value in own.items() if key != "metric"} | {"train": t, "test": s}
            for t, s in row["pairs"]
        ]
    if row["table"] != ANALYSIS or "family" not in known:
        return [own]
    pairs = _pairs(material, known)
    if pairs is None and known.get("analysis") == "turning_point" and known.get("group") == "level":
        return [own]
    if pairs is None:
        return [own, own | UNTOUCHED] if known.get("train") != "none" else [own]
    models = [own | {"train": train, "test": test} for train, test in pairs if train != "none"]
    bases = [own | UNTOUCHED | {"test": test} for test in dict.fromkeys(test for _, test in pairs)]
    return [own | {"train": None, "test": None}, *models, *bases]


def _pairs(material: Material, known: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    """Task tuned on and test of all that a pooled value is made of; None for a single pair, or a base on one test."""
    if known.get("train") is not None and known.get("test") is not None:
        return None
    table = material.analysis
    rows = table[table["test"].notna() & table["train"].notna()]
    rows = rows if known["family"] is None else rows[rows["family"] == known["family"]]
    if known["analysis"] == "performance_difference":
        return [(train, test) for train, tests in material.groups.get(known["group"], {}).items() for test in tests]
    if known["analysis"] == "ratio_of_change":
        found = rows[rows["analysis"] == "tuning_difference"]
        found = found[[direction(*pair) == known["group"] for pair in zip(found["train"], found["test"], strict=True)]]
    elif known["analysis"] == "learning":
        found = rows[(rows["analysis"] == "tuning_difference") & (rows["test"] == known["test"])]
        found = selection.related(found, {"in_domain", "instructed"})
        return [("none", known["test"]), *dict.fromkeys(zip(found["train"], found["test"], strict=True))]
    else:
        found = rows[rows["analysis"] == known["analysis"]]
        for key in ("group", "train", "test"):
            found = found if known.get(key) is None else found[found[key] == known[key]]
        if (
            known["analysis"] == "tuning_difference"
        ):  # counted: of one model over tests of other kinds, of all over all others
            found = selection.related(found, {"cross_task"} if known.get("train") else {"cross_task", "out_of_domain"})
    return list(dict.fromkeys(zip(found["train"], found["test"], strict=True)))


def weakened(sides: Sequence[Mapping[str, Any]], section: str, audit: pd.DataFrame) -> list[str]:
    """The audit's errors and warnings about one of the sides of a finding: none of their keys differs from those of the side.

    Where an audit row says nothing of a key it is taken to be about all of them. Against a finding about a task or a test stands
    what the audit says of that task or test, or of every difference of a suite (checks with EVERY_DIFFERENCE); what it says of a
    whole suite stands against what is pooled. A forecast is weakened by what the audit says about no family, and only by that.
    """
    if section not in WEAKENED:
        return []
    rows = audit[audit["severity"].isin(WEAKENING)]
    found = [row for side in sides for row in _against(side, section, rows).itertuples()]
    return list(dict.fromkeys(f"{row.severity}, {row.check}: {row.evidence}" for row in found))


def _against(side: Mapping[str, Any], section: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The audit rows about one side."""
    for key in (name for name in tables.AUDIT_KEYS if side.get(name) is not None):
        rows = rows[rows[key].isna() | (rows[key] == side[key])]
    if section == "forecasts":
        return rows[rows["family"].isna()]
    rows = rows[rows["cohort"].isna()]
    named = [key for key in ("train", "test") if side.get(key) not in (None, "none")]
    if named:
        return rows[rows[named].notna().any(axis=1) | (rows["family"].notna() & rows["check"].isin(_everywhere()))]
    return rows[rows["family"].notna() & rows["test"].isna() & rows["train"].isna()]


def _everywhere() -> list[str]:
    """Checks whose findings stand against every difference of the suites that they name."""
    return [
        name for name in registry.modules(checks) if getattr(registry.module(checks, name), "EVERY_DIFFERENCE", False)
    ]


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
