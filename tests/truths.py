"""What findings may and must say of the mini world, whose truths are planted; and whether statements follow from tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from workflow.analysis.analyses.extrapolation import ASSUMED

COUNTS = (
    "tests of other kinds the change is not significant", "No turning step is named", "No significant decline",
    "no significant change (Holm)", "Conclusion (iii)", "Signal to noise", "the shortlist that holds the best"
)  # fmt: skip

# What must be said of the last base, and what must not be said by any finding.
TRUTHS = {
    "facts are known before tuning": r"^mini_facts: (?:most likely )?learned in pre-training",
    "inference is latent": r"^mini_inference: (?:most likely )?learned in tuning",
    "tuning brings inference to light": r"^Tuning on mini_inference raises accuracy on mini_inference by",
    "inference in other words": r"^Tuning on mini_inference helps on mini_inference_ood",
    "summaries are learned in tuning": r"^Tuning on mini_summary raises ROUGE-L on mini_summary by",
    "questions are learned in tuning": r"^Tuning on mini_question raises ROUGE-L on mini_question by",
    "the shortcut helps at home": r"^Tuning on mini_paraphrase raises accuracy on mini_paraphrase by",
    "the shortcut hurts elsewhere": r"^Tuning on mini_paraphrase hurts on mini_paraphrase_ood",
}
LIES = {
    "the control is learned": r"^mini_control(?:_ood)?: (?:most likely )?learned in",
    "tuning teaches the control": r"^Tuning on mini_control (?:raises|helps on mini_control_ood)",
    "facts need tuning": r"^mini_facts: (?:most likely )?learned in tuning",
    "inference is there before tuning": r"^mini_inference(?:_ood)?: (?:most likely )?learned in (?:pre-training|both)",
    "tuning spoils inference": r"^Tuning on mini_inference (?:lowers|hurts on mini_inference_ood)",
    "the shortcut carries over": r"^Tuning on mini_paraphrase helps on mini_paraphrase_ood",
    "writing is unlearned": r"^Tuning on mini_(?:summary|question) lowers",
}


def said(statements: pd.Series, patterns: Mapping[str, str]) -> set[str]:
    """The names of the patterns that some statement fits."""
    return {name for name, pattern in patterns.items() if statements.str.contains(pattern, regex=True).any()}


def check(finding: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> None:
    """A finding follows from its table: its figures are those of the row that its filter names, each number of its sentence
    is one of that row or of its siblings, and its verb has the sign of its value."""
    conditions, table = json.loads(finding["filter"]), tables[finding["table"]]
    quoted = ("estimator", "group") if finding["finding"] == "learning" else ("estimator",)
    own, siblings = _rows(table, conditions), _rows(table, {k: v for k, v in conditions.items() if k not in quoted})
    if finding["finding"] == "recommendations":
        assert len(own)  # of several tests or bases; tests/analysis/test_recommendation.py has their numbers
        return
    if finding["finding"] == "audit":
        assert finding["value"] == len(own) and finding["n"] == len(table)
        return
    if any(text in finding["statement"] for text in COUNTS):
        assert len(own) == finding["n"] or finding["table"] == "rankings", (finding["statement"], len(own))
        return  # the counts themselves: see the tests of their kinds
    value, low, high = _columns(finding)
    if (
        finding["finding"] == "extrapolation"
    ):  # curves over other steps have a row of the same keys; the value tells them apart
        meant = np.isclose(
            own[value].astype(float), np.nan if pd.isna(finding["value"]) else finding["value"], equal_nan=True
        )
        own = own[meant].drop_duplicates([value, "p_value"])
    assert len(own) == 1, (finding["statement"], len(own))
    row = own.iloc[0]
    same(finding["value"], row[value])
    if low in row:
        same(finding["low"], row[low])
        same(finding["high"], row[high])
    allowed = list(_numbers(siblings))
    for number, digits in _quoted(finding["statement"], siblings):
        assert any(abs(number - abs(one)) <= 0.5001 * 10.0**-digits for one in allowed), (number, finding["statement"])
    _check_verb(finding["statement"], row)


def _columns(finding: Mapping[str, Any]) -> tuple[str, str, str]:
    """The columns that a finding's figures are from."""
    if finding["table"] == "forecasts":
        learned = "learning to compare" in finding["statement"]
        return ("lead", "lead_low", "lead_high") if learned else ("accuracy", "joint_low", "joint_high")
    return ("hours" if finding["table"] == "tables/gpu_hours" else "value"), "low", "high"


def same(found: float | None, expected: Any) -> None:
    """Both numbers agree, or both are missing."""
    assert (pd.isna(found) and pd.isna(expected)) or found == float(expected), (found, expected)


def _rows(table: pd.DataFrame, conditions: Mapping[str, Any]) -> pd.DataFrame:
    """The rows with these values, one column after the other; of a list any value, of `any` any of its conditions."""
    keep = np.ones(len(table), dtype=bool)
    for key, value in conditions.items():
        if key == "any":
            keep &= np.any([table.index.isin(_rows(table, own).index) for own in value], axis=0)
            continue
        wanted = value if isinstance(value, list) else [value]
        keep &= np.array([(None if pd.isna(one) else one) in wanted for one in table[key]])
    return table[keep]


def _numbers(rows: pd.DataFrame) -> Iterator[float]:
    """Every number that a sentence about these rows may hold: theirs, as they are, in percent, or for other step counts."""
    yield from (0.5, 95.0, 80.0)
    for name in rows.select_dtypes("number").columns:
        for value in rows[name].dropna().astype(float):
            yield from (value, 100 * value)
            if name in ("value", "low", "high"):
                yield from (100 * value * 10.0**power / 1e5 for power in range(7))


def _quoted(statement: str, rows: pd.DataFrame) -> Iterator[tuple[float, int]]:
    """The numbers of a sentence without those in names, with their digits behind the point."""
    detectable = (
        r"; (?:detectable change [\d.]+%?|no possible change is detectable)(?: on (?:each|\d+) of them)? \(power 0.8\)"
        rf"|detectable difference [\d.]+, power 0.8|{re.escape(ASSUMED)}"
    )
    statement = re.sub(r"(?<=\()\d[\d.]*[KMBT]? tokens", "", statement)
    statement = re.sub(rf"\d+,000 steps|\d+ indicators|arXiv [\d.]+|{detectable}", "", statement)
    for name in {str(v) for c in rows.select_dtypes(exclude="number") for v in rows[c].dropna()}:
        statement = statement.replace(name, "")
    for found in re.findall(r"\d*\.?\d+", statement):
        yield float(found), len(found.partition(".")[2])


def _check_verb(statement: str, row: pd.Series) -> None:
    for verb, sign in {" raises ": 1, " helps on ": 1, " lowers ": -1, " hurts on ": -1}.items():
        if verb in statement:
            assert sign * row["value"] > 0 and row["low"] * row["high"] > 0, statement


def significant(rows: pd.DataFrame) -> np.ndarray:
    """Which values differ from 0 at 5 % over all rows, by Holm's procedure as a loop over the rows' p-values."""
    p = rows["p_value"].astype(float).fillna(1.0).to_numpy()
    found = np.zeros(len(p), dtype=bool)
    for place, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] >= 0.05 / (len(p) - place):
            break
        found[index] = True
    return found
