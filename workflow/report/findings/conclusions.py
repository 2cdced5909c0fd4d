"""The four conclusions of arXiv 2408.06663 (abstract): confirmed, contradicted, or left open by this study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.analysis.analyses.pretraining_change import COMPARED, FLAT
from workflow.report import selection
from workflow.report.findings import FindingTables, about, about_sort, counting, finding

SECTION = "tuned"
READS = ("analysis",)
KEYS = [
    "analysis", "group", "family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"
]  # fmt: skip
COUNTED = [key for key in KEYS if key != "group"]
OPEN = "neither confirmed nor contradicted"


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """The findings in the order of the paper's conclusions, for each family and suite."""
    yield from _latent(material)
    yield from _unlearned_gain_more(material)
    yield from _forgetting(material)
    yield from _prompts(material)


def verdict(value: float, significant: bool) -> str:
    """`confirmed` for a significant value of the claimed sign, `contradicted` for the other sign, OPEN if not significant."""
    if not significant:
        return OPEN
    return "confirmed" if value > 0 else "contradicted"


def _pooled(material: FindingTables, group: str, estimator: str) -> Iterator[tuple[pd.DataFrame, Any, str, str]]:
    """Means over tests: all rows, one row, the verdict on the conclusion, the words on its significance."""
    rows = material.rows("pretraining_change", estimator)
    rows = rows[(rows["group"] == group) & rows["test"].isna()]
    significant, tested = material.significant(rows), material.verdicts(rows, pooled=True)
    for index, row in rows.iterrows():
        yield rows, row, verdict(row["value"], bool(significant[index])), tested[index]


def _pairs(n: float) -> str:
    return f"{int(n)} pair{'' if n == 1 else 's'} of task and test"


def _latent(material: FindingTables) -> Iterator[dict[str, Any]]:
    for rows, row, said, tested in _pooled(material, FLAT, "last_minus_first"):
        text = (
            f"Conclusion (i) of arXiv 2408.06663, pre-training improves models in a latent way that fine-tuning reveals"
            f"{about(rows, row, 'recipe')}: {said}. On tests whose untouched base is not significantly better at the last step "
            f"than at the first, tuned models change from the first step to the last by {material.interval(row)} on average over "
            f"{_pairs(row['n'])}: {tested}."
        )
        yield finding(text, row, KEYS)


def _unlearned_gain_more(material: FindingTables) -> Iterator[dict[str, Any]]:
    for rows, row, said, tested in _pooled(material, COMPARED, "gain_at_last_step"):
        text = (
            f"Conclusion (ii) of arXiv 2408.06663, fine-tuning gains more on tests that pre-training does not improve"
            f"{about(rows, row, 'recipe')}: {said}. At the last step it gains {material.interval(row)} more on tests whose "
            f"untouched base has not risen than on those whose base has ({_pairs(row['n'])} in the smaller group): {tested}."
        )
        yield finding(text, row, KEYS)


def _forgetting(material: FindingTables) -> Iterator[dict[str, Any]]:
    """Counts over the tests in the domain of the fine-tuning task, and over all other tests; Holm's procedure for each of
    the two.
    """
    rows = material.last(material.rows("tuning_difference", "difference_of_means"))
    whole = [
        selection.related(rows, relations)
        for relations in ({"in_domain", "instructed"}, {"out_of_domain", "cross_task"})
    ]
    sure, better = pd.concat([material.significant(relations) for relations in whole]), material.improvements(rows)
    for _, members in rows.groupby([*selection.PLACE, "recipe"], sort=False):
        home, others = (relations[relations.index.isin(members.index)] for relations in whole)
        if others.empty:
            continue
        significant, benefits = sure[others.index], sure[home.index] & (better[home.index] > 0)
        changes = better[others.index]
        worse, improved = (int((significant & signs).sum()) for signs in (changes < 0, changes > 0))
        said = "confirmed" if worse and benefits.any() else OPEN
        text = (
            f"Conclusion (iii) of arXiv 2408.06663, fine-tuning helps, but models may forget other tasks"
            f"{about_sort(rows, others.iloc[0])}: {said}. At the last step fine-tuning "
            f"significantly (Holm) improves {int(benefits.sum())} of {len(home)} scores in the domain tuned on; of {len(others)} "
            f"scores on other domains and tasks it significantly worsens {worse} and improves {improved}."
        )
        yield counting(text, others, COUNTED, worse)


def _prompts(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each other format: the change of the lead of the fine-tuning format along pre-training.

    The sign of the lead at the first step decides which change means less sensitivity.
    """
    gaps = material.analysis[(material.analysis["analysis"] == "format_gap") & material.analysis["test"].isna()]
    gaps = gaps[gaps["train"].isna() & gaps["value"].notna() & gaps["group"].str.startswith("default_minus_")]
    gaps = gaps[gaps["format"].isna() | (gaps["format"] == "default")]
    group_keys = [*selection.PLACE, "shots"]
    gaps = gaps.merge(material.ways[group_keys], on=group_keys)
    changes = gaps[gaps["estimator"] == "last_minus_first"]
    significant, tested = material.significant(changes), material.verdicts(changes, pooled=True)
    for index, row in changes.iterrows():
        first = _first(gaps, row)
        less = -row["value"] if first is None or first > 0 else row["value"]
        other = row["group"].removeprefix("default_minus_")
        text = (
            f"Conclusion (iv) of arXiv 2408.06663, tuned models are sensitive to the prompt, less so with more "
            f"pre-training{about(changes, row, 'recipe')}, format {other}: "
            f"{verdict(less, bool(significant[index]))}. The lead of prompts in the "
            f"format tuned in over those in format {other} changes by {material.interval(row)} from the first to the last step, "
            f"on average over {_pairs(row['n'])}: {tested[index]}."
        )
        yield {"section": "formats"} | finding(text, row, KEYS)


def _first(gaps: pd.DataFrame, row: Any) -> float | None:
    """The mean gap of the same models at the first step."""
    keys = ["group", *selection.PLACE, "shots"]
    same = gaps[(gaps[keys] == row[keys]).all(axis=1) & (gaps["estimator"] == "difference_of_means")]
    same = same[same["recipe"].isna()] if pd.isna(row["recipe"]) else same[same["recipe"] == row["recipe"]]
    return float(same.sort_values("step")["value"].iloc[0]) if len(same) else None
