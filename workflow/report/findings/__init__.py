"""One module for each kind of finding: `find(material)` yields short statements, by a fixed rule, from the tables of a study.

A module also names its SECTION of the report and the tables that it READS. It is skipped in a study that lacks one of them.
A finding is a row of `tables.FINDINGS` about one row of a table, which its filter selects. Its sentence may quote the
siblings of that row: rows that differ from it in the estimator alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow import registry, task
from workflow.analysis.analyses.ratio_of_change import direction
from workflow.audit import checks
from workflow.evaluation import metric_names
from workflow.report import selection
from workflow.report.sections import SECTIONS
from workflow.statistics import NORMAL, POWER, detectable, holm, student_width
from workflow.storage import tables
from workflow.study import token_axis

ANALYSIS = "analysis"
TEST_WAY = [*selection.PLACE, *selection.WAY]
WEAKENING = ("error", "warning")
WEAKENED = ("answer", "base", "tuned", "transfer", "formats", "forecasts")  # sections whose findings are about scores
OWN_NOTES = ("recommendations",)
CUT_AT = (-2.0, -1.0, 1.0, 2.0)  # limits of differences of scores, and of differences of those
OF_COHORTS = ("forecasts", "rankings")  # tables about the targets of cohorts
TUNING = ("train", "format", "recipe")
SEEDED_KEYS = (*TUNING, "suite", "test", "test_format", "shots")  # the variance between seeds is that of all bases
UNTOUCHED = {"train": "none", "format": "none", "recipe": "none", "seed": 0}


@dataclass(frozen=True)
class FindingTables:
    """The tables that findings are made from. tables: by name, as under `results/`; level: of the confidence intervals;
    groups: of the study; targets: of the study's own cohorts, each of one test or more (`own_cohort.targets`); cohorts: their
    names; rate_twins: pairs of recipes that differ only in the learning rate, one for a family and one for each base."""

    tables: Mapping[str, pd.DataFrame]
    level: float
    groups: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    targets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cohorts: Sequence[str] = ()
    rate_twins: Sequence[Sequence[str]] = ()

    @cached_property
    def analysis(self) -> pd.DataFrame:
        """The analysis table. Tests that are part of a mean are left out; the mean stays."""
        rows = selection.overlaid(self.tables[ANALYSIS], {})
        return rows[~rows["test"].isin(metric_names.parts(self.tables["scores"]))] if "scores" in self.tables else rows

    @cached_property
    def ways(self) -> pd.DataFrame:
        """The main format and number of few-shot examples of each suite (`selection.chosen`): one row each, columns TEST_WAY."""
        return selection.only(self.analysis, "performance")[TEST_WAY].drop_duplicates()

    @cached_property
    def tokens(self) -> token_axis.Seen:
        """The tokens of each family's steps, as far as they are known."""
        return token_axis.seen(self.tables["scores"]) if "scores" in self.tables else {}

    @cached_property
    def _less_is_better(self) -> frozenset[tuple[str, str]]:
        """Suites and tests whose primary metric is better where it is lower, such as perplexity."""
        if "scores" not in self.tables:
            return frozenset()
        scores = self.tables["scores"]
        primary = scores.loc[scores["primary"] & (scores["better"] == "lower"), ["suite", "test"]]
        return frozenset(primary.drop_duplicates().itertuples(index=False, name=None))

    def less_is_better(self, row: Mapping[str, Any]) -> bool:
        """Whether less of the primary metric of a row's test is better."""
        return (row["suite"], row["test"]) in self._less_is_better

    def improvements(self, rows: pd.DataFrame) -> pd.Series:
        """The values of rows about one test each, with their sign changed where less of the test's metric is better."""
        lower = np.array([self.less_is_better(row) for row in rows.to_dict("records")], dtype=bool)
        return rows["value"].where(~lower, -rows["value"])

    @cached_property
    def within_one(self) -> bool:
        """Whether all scores of the study are known to lie between 0 and 1."""
        if ANALYSIS not in self.tables:
            return False
        scores = selection.only(self.analysis, "performance")["value"].dropna()
        return bool(len(scores)) and bool(scores.between(0, 1).all())

    @cached_property
    def single_seeds(self) -> pd.DataFrame:
        """Tunings and tests whose variance between seeds is unknown: the distinct SEEDED_KEYS of the analysis `performance`."""
        table = self.tables.get(ANALYSIS)
        if table is None:
            return pd.DataFrame(columns=list(SEEDED_KEYS))
        single = (
            (table["analysis"] == "performance")
            & table["seed_variance"].notna()
            & ~table["seed_variance"].fillna(True).astype(bool)
        )
        return table.loc[single, list(SEEDED_KEYS)].drop_duplicates()

    def targets_of(self, conditions: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The scores that a target of one of the study's own cohorts is a mean of, as conditions on their keys; else nothing."""
        target = self.targets.get(str(conditions["target"]))
        if target is None or conditions["cohort"] not in self.cohorts:
            return []
        return [{**target["way"], "train": train, "test": test} for train, test in target["tests"]]

    def rows(self, analysis: str, *estimators: str, missing: bool = False) -> pd.DataFrame:
        """The rows of one analysis that have a value, of some or all estimators, in the main format and number of shots.

        Fine-tuned models are kept where they are tested in the format they were tuned in. missing: keep rows without a value.
        """
        rows = self.analysis[(self.analysis["analysis"] == analysis) & (self.analysis["value"].notna() | missing)]
        rows = rows[rows["estimator"].isin(estimators)] if estimators else rows
        same_format = rows["format"].isna() | (rows["format"] == "none") | (rows["format"] == rows["test_format"])
        return rows[same_format].merge(self.ways, on=TEST_WAY)

    def last(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows at the last step of their family."""
        return rows[rows["step"] == rows.groupby("family")["step"].transform("max")]

    def significant(self, rows: pd.DataFrame) -> pd.Series:
        """Whether each value differs from 0 by Holm's procedure (1979) over the p-values of all rows.

        The p-values come from the same margins as the intervals. A row without a p-value is not significant.
        """
        return pd.Series(holm(rows["p_value"].astype(float).fillna(1.0).to_numpy()) < 1 - self.level, index=rows.index)

    def detectable(self, rows: pd.DataFrame, pooled: bool = False) -> pd.Series:
        """The smallest true value that this study would find significant with power .8, for each row; NaN without an interval.

        The level is the one that Holm's procedure requires of the first row that is not significant. pooled: n counts the units
        of Student's t (tests, pairs).
        """
        left = max(1, int((~self.significant(rows)).sum()))
        smallest = {}
        for index, row in rows.iterrows():
            freedom = max(1, row["n"] - 1) if pooled and pd.notna(row["n"]) and row["n"] > 1 else NORMAL
            error = half_width(row) / student_width(self.level, freedom)
            smallest[index] = detectable(error, 1 - (1 - self.level) / left, freedom)
        return pd.Series(smallest, index=rows.index, dtype=float)

    def verdicts(self, rows: pd.DataFrame, pooled: bool = False, form: str = ".3f") -> pd.Series:
        """The words after each value: significant, or not significant with the smallest change that would have been."""
        small, sure = self.detectable(rows, pooled), self.significant(rows)
        if self.within_one and not form.endswith("%"):  # of scores from 0 to 1 no change is larger
            small = small.where(~(small > 1), np.inf)
        texts = ["significant (Holm)" if sure[index] else not_significant(small[index], form) for index in rows.index]
        return pd.Series(texts, index=rows.index, dtype=object)

    def interval(self, row: Mapping[str, Any], form: str = ".3f") -> str:
        """A value with its interval, for a sentence."""
        value = signed(row["value"], form)
        if pd.isna(row["low"]):
            return f"{value} (no interval)"
        if row["low"] in CUT_AT and row["high"] in CUT_AT:
            return f"{value} ({ci(self.level)}: any possible value)"
        return f"{value} ({ci(self.level)} {signed(row['low'], form)} to {signed(row['high'], form)})"


def half_width(row: Mapping[str, Any]) -> float:
    """Half the width of an interval; of one that is cut at a limit of possible values (`statistics.ends`), the width of its
    other side; infinite if both sides are cut, NaN without an interval."""
    if pd.isna(row["low"]):
        return np.nan
    sides = [
        (float(row["value"] - row["low"]), float(row["low"])),
        (float(row["high"] - row["value"]), float(row["high"])),
    ]
    whole = [width for width, end in sides if end not in CUT_AT]
    return sum(whole) / len(whole) if whole else np.inf


def ci(level: float) -> str:
    """The name of an interval: `95 % CI`."""
    return f"{100 * level:g} % CI"


def not_significant(smallest: float, form: str = ".3f") -> str:
    """The words after a value that is not significant. smallest: detectable change, NaN where the uncertainty is unknown."""
    if pd.isna(smallest):
        return "not tested, since its uncertainty is unknown"
    if np.isinf(smallest):
        return f"not significant (Holm); no possible change is detectable (power {POWER:g})"
    return f"not significant (Holm); detectable change {smallest:{form}} (power {POWER:g})"


def signed(value: float, form: str = ".3f") -> str:
    """A number with a typographic minus sign; zero has no sign."""
    text = format(value, form)
    return text.removeprefix("-") if not any(digit in text for digit in "123456789") else text.replace("-", "−")


def kinds(names: Sequence[str]) -> list[str]:
    """The kinds of findings that can be made from the tables of these names."""
    import workflow.report.findings as package

    return [name for name in registry.modules(package) if set(registry.module(package, name).READS) <= set(names)]


def all_findings(material: FindingTables, audit: pd.DataFrame) -> list[dict[str, Any]]:
    """All findings, rows of `tables.FINDINGS`, by section, each with the audit's errors and warnings against it."""
    import workflow.report.findings as package

    rows = []
    for name in kinds(list(material.tables)):
        module = registry.module(package, name)
        # A finding may name another section than its module.
        rows += [{"section": module.SECTION, "finding": name, **row} for row in module.find(material)]
    rows.sort(key=lambda row: list(SECTIONS).index(row["section"]))
    against = Warnings(audit)
    return [_completed(material, row, against) for row in rows]


def _completed(material: FindingTables, row: Mapping[str, Any], against: Warnings) -> dict[str, Any]:
    """A finding with the tokens of its steps, the note on single seeds and the audit's warnings."""
    scores = sides(material, row)
    columns = {name: value for name, value in row.items() if name != "pairs"}
    family = json.loads(row["filter"]).get("family")
    statement = token_axis.annotated(row["statement"], material.tokens, family if isinstance(family, str) else None)
    statement += one_seed(material, row, scores)
    return {**columns, "statement": statement, "warnings": weakened(scores, row["section"], against)}


def one_seed(material: FindingTables, row: Mapping[str, Any], scores: Sequence[Mapping[str, Any]]) -> str:
    """The note on single seeds if the finding is about a fine-tuned model whose variance between seeds is unknown; else
    nothing.

    Every finding passes through here. Recommendations state themselves what single seeds mean for the choice of a base.
    scores: the sides of the finding.
    """
    if row["section"] not in WEAKENED or row["finding"] in OWN_NOTES:
        return ""
    if row["table"] in OF_COHORTS:
        scores = material.targets_of(json.loads(row["filter"]))
    models = {tuple(side.get(key) for key in TUNING) for side in scores if _single(material.single_seeds, side)}
    if not models:
        return ""
    several = len(models) > 1
    return (
        " One seed each: other seeds may give other values."
        if several
        else " One seed: another seed may give another value."
    )


def _single(single: pd.DataFrame, side: Mapping[str, Any]) -> bool:
    """Whether one side of a finding is a fine-tuned model with a single seed. single: `single_seeds`."""
    if side.get("train") in (None, "none"):
        return False
    known = {key: side[key] for key in SEEDED_KEYS if side.get(key) is not None}
    return not tables.matching(single, known).empty


def counting(
    statement: str, rows: pd.DataFrame, keys: Sequence[str], value: float, table: str = ANALYSIS
) -> dict[str, Any]:
    """A finding that counts rows, each once. keys: the columns that identify a row.

    Its filter selects exactly these rows: keys that all rows share have one value; if one other key differs, it has a list
    of values; if several differ, `any` lists the combinations.
    """
    shared = [key for key in keys if rows[key].nunique(dropna=False) == 1]
    row = finding(statement, rows.iloc[0], shared, table, value=value, low=None, high=None, n=len(rows))
    return row | {"filter": _written(json.loads(row["filter"]) | _varied(rows, [k for k in keys if k not in shared]))}


def _varied(rows: pd.DataFrame, keys: Sequence[str]) -> dict[str, Any]:
    """Conditions on the keys in which rows differ."""
    if not keys:
        return {}
    *others, last = sorted(keys, key=lambda key: key == "test")
    if not others:
        return {last: [_plain(value) for value in rows[last]]}
    groups = rows.groupby(others, sort=False, dropna=False)
    return {
        tables.ANY: [
            {key: _plain(group[key].iloc[0]) for key in others} | {last: [_plain(value) for value in group[last]]}
            for _, group in groups
        ]
    }


def _plain(value: Any) -> Any:
    """A cell of a table as a JSON value."""
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _written(conditions: Mapping[str, Any]) -> str:
    return json.dumps(conditions, ensure_ascii=False)


def finding(
    statement: str, row: Mapping[str, Any], keys: Sequence[str], table: str = ANALYSIS, **others: Any
) -> dict[str, Any]:
    """A finding about one row of a table.

    keys: the columns that select it, including null values; others: numbers that replace those of the row.
    """
    conditions = {key: _plain(row[key]) for key in keys}
    figures: dict[str, Any] = {name: row.get(name) for name in ("value", "low", "high", "n")} | others
    clean: dict[str, Any] = {name: None if pd.isna(figure) else float(figure) for name, figure in figures.items()}
    if clean["n"] is not None:
        clean["n"] = int(clean["n"])
    return {"statement": statement, **clean, "table": table, "filter": _written(conditions)}


def sides(material: FindingTables, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scores that a finding rests on, each as conditions on the audit's keys: its row, the base of a difference, and both
    sides of each pair of task and test in a pooled value. A finding may name its `pairs` itself."""
    conditions = json.loads(row["filter"])
    model_keys = {
        key: value for key, value in conditions.items() if key in tables.AUDIT_KEYS and not isinstance(value, list)
    }
    if row.get("pairs"):
        return [
            {key: value for key, value in model_keys.items() if key != "metric"} | {"train": t, "test": s}
            for t, s in row["pairs"]
        ]
    if row["table"] != ANALYSIS or "family" not in conditions:
        return [model_keys]
    pairs = _pairs(material, conditions)
    if pairs is None and conditions.get("group") == "level":
        return [model_keys]
    if pairs is None:
        return [model_keys, model_keys | UNTOUCHED] if conditions.get("train") != "none" else [model_keys]
    models = [model_keys | {"train": train, "test": test} for train, test in pairs if train != "none"]
    bases = [model_keys | UNTOUCHED | {"test": test} for test in dict.fromkeys(test for _, test in pairs)]
    return [model_keys | {"train": None, "test": None}, *models, *bases]


def _pairs(material: FindingTables, conditions: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    """The pairs of fine-tuning task and test in a pooled value or a count; None for a single pair, or for a base on one
    test.
    """
    if tables.ANY in conditions or any(isinstance(value, list) for value in conditions.values()):
        rows = tables.matching(material.analysis, conditions)
        return _distinct(rows[rows["test"].notna()])
    if conditions.get("train") is not None and conditions.get("test") is not None:
        return None
    table = material.analysis
    rows = table[table["test"].notna() & table["train"].notna()]
    rows = rows if conditions["family"] is None else rows[rows["family"] == conditions["family"]]
    if conditions["analysis"] == "performance_difference":
        return [
            (train, test) for train, tests in material.groups.get(conditions["group"], {}).items() for test in tests
        ]
    changes = rows[rows["analysis"] == "tuning_difference"]
    if conditions["analysis"] == "ratio_of_change":
        pairs = zip(changes["train"], changes["test"], strict=True)
        return _distinct(changes[[direction(*pair) == conditions["group"] for pair in pairs]])
    if conditions["analysis"] == "pretraining_change":
        return _at_home(changes[changes["suite"] == conditions["suite"]])
    if conditions["analysis"] == "learning":
        return [("none", conditions["test"]), *_at_home(changes[changes["test"] == conditions["test"]])]
    rows = rows[rows["analysis"] == conditions["analysis"]]
    for key in ("group", "train", "test"):
        rows = rows if conditions.get(key) is None else rows[rows[key] == conditions[key]]
    return _distinct(rows)


def _at_home(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs that analyses take for tests in the domain of the fine-tuning task."""
    return [pair for pair in _distinct(rows) if task.counts_as_in_domain(*pair)]


def _distinct(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The different pairs of fine-tuning task and test."""
    return list(dict.fromkeys(zip(rows["train"], rows["test"], strict=True)))


class Warnings:
    """The audit's errors and warnings, prepared for look-ups by many findings."""

    def __init__(self, audit: pd.DataFrame) -> None:
        """Take the errors and warnings of the table of the audit."""
        self.rows = audit[audit["severity"].isin(WEAKENING)]
        self.texts = [f"{row.severity}, {row.check}: {row.evidence}" for row in self.rows.itertuples()]
        self.null = {key: self.rows[key].isna().to_numpy(dtype=bool) for key in tables.AUDIT_KEYS}
        everywhere = [
            name
            for name in registry.modules(checks)
            if getattr(registry.module(checks, name), "EVERY_DIFFERENCE", False)
        ]
        self.everywhere = self.rows["check"].isin(everywhere).to_numpy(dtype=bool)
        self._about: dict[tuple[str, Any], NDArray[np.bool_]] = {}

    def against(self, side: Mapping[str, Any], section: str) -> NDArray[np.bool_]:
        """Whether each row is about one side of a finding, shape (rows,)."""
        about_side = np.ones(len(self.rows), dtype=bool)
        for key in (name for name in tables.AUDIT_KEYS if side.get(name) is not None):
            about_side &= self._of(key, side[key])
        if section == "forecasts":
            return about_side & self.null["family"]
        about_side &= self.null["cohort"]
        named = [key for key in ("train", "test") if side.get(key) not in (None, "none")]
        if named:
            some = np.any([~self.null[key] for key in named], axis=0)
            return about_side & (some | (~self.null["family"] & self.everywhere))
        return about_side & ~self.null["family"] & self.null["test"] & self.null["train"]

    def _of(self, key: str, value: Any) -> NDArray[np.bool_]:
        """Whether each row has this value of a key, or is about all of them."""
        if (key, value) not in self._about:
            equal = (self.rows[key] == value).fillna(False).to_numpy(dtype=bool)
            self._about[key, value] = self.null[key] | equal
        return self._about[key, value]


def weakened(sides: Sequence[Mapping[str, Any]], section: str, audit: Warnings) -> list[str]:
    """The audit's errors and warnings about one side of a finding: those whose keys all agree with the keys of the side.

    An audit row without a key is about all values of that key. A finding about a task or a test gets the warnings about that
    task or test, and those about every difference of its suite (checks with EVERY_DIFFERENCE). A pooled finding gets the
    warnings about the whole suite. A forecast gets the warnings about no family, and only those.
    """
    if section not in WEAKENED:
        return []
    indices = (index for side in sides for index in np.flatnonzero(audit.against(side, section)))
    return list(dict.fromkeys(audit.texts[index] for index in indices))


def about(rows: pd.DataFrame, row: Mapping[str, Any], *more: str) -> str:
    """The keys that distinguish a row from the others, in brackets: family and suite if the rows have several, more if the
    rows of the same fine-tuning task have several; else nothing.
    """
    alike = rows[rows["train"] == row["train"]] if more and not pd.isna(row["train"]) else rows
    several = [key for key in ("family", "suite") if rows[key].nunique() > 1]
    several += [key for key in more if alike[key].nunique() > 1]
    names = [str(row[key]) for key in several if not pd.isna(row[key]) and row[key] != "none"]
    return f" ({', '.join(names)})" if names else ""


def about_sort(rows: pd.DataFrame, row: Mapping[str, Any]) -> str:
    """The keys that distinguish a sort of models (untouched bases, or those fine-tuned with one recipe), in brackets; else
    nothing.
    """
    alike = rows[(rows["recipe"] == "none") == (row["recipe"] == "none")]
    return about(alike, {**row, "train": None}, "recipe")


def siblings(
    rows: pd.DataFrame, row: Mapping[str, Any], keys: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows that differ from a row only in the estimator: estimator -> row."""
    conditions = {key: row[key] for key in keys if key != "estimator"}
    for _, other in tables.matching(rows, conditions).iterrows():
        yield other["estimator"], other
