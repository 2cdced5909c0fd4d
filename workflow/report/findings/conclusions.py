"""The four conclusions of arXiv 2408.06663 (abstract), each confirmed, contradicted, or left open by this study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.analysis.analyses.pretraining_change import COMPARED, FLAT
from workflow.report import selection
from workflow.report.findings import Material, about, finding

SECTION = "tuned"
READS = ("analysis",)
KEYS = [
    "analysis", "group", "family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"
]  # fmt: skip
COUNT = [key for key in KEYS if key not in ("group", "train", "format", "recipe", "test")]
OPEN = "neither confirmed nor contradicted"


def find(material: Material) -> Iterator[dict[str, Any]]:
    """The findings in the order of the paper's conclusions, for each family and suite."""
    yield from _latent(material)
    yield from _unlearned_gain_more(material)
    yield from _forgetting(material)
    yield from _prompts(material)


def verdict(value: float, told: bool) -> str:
    """What a significant value of the claimed sign, of the other sign, and one that is not significant make of a conclusion."""
    if not told:
        return OPEN
    return "confirmed" if value > 0 else "contradicted"


def _pooled(material: Material, group: str, estimator: str) -> Iterator[tuple[pd.DataFrame, Any, str]]:
    """Rows of means over tests with what they make of a conclusion."""
    rows = material.rows("pretraining_change", estimator)
    rows = rows[(rows["group"] == group) & rows["test"].isna()]
    told = material.significant(rows)
    for place, row in rows.iterrows():
        yield rows, row, verdict(row["value"], told[place])


def _latent(material: Material) -> Iterator[dict[str, Any]]:
    for rows, row, said in _pooled(material, FLAT, "last_minus_first"):
        text = (
            f"Conclusion (i) of arXiv 2408.06663, pre-training improves a model in a latent way that tuning unveils"
            f"{about(rows, row, 'recipe')}: {said}. On the tests whose untouched base is not significantly better at the last "
            f"step than at the first, tuned models change on average by {material.interval(row)} "
            f"from the first to the last ({int(row['n'])} pairs of task and test)."
        )
        yield finding(text, row, KEYS)


def _unlearned_gain_more(material: Material) -> Iterator[dict[str, Any]]:
    for rows, row, said in _pooled(material, COMPARED, "gain_at_last_step"):
        text = (
            f"Conclusion (ii) of arXiv 2408.06663, tests that pre-training does not teach gain more by tuning than those that it "
            f"does{about(rows, row, 'recipe')}: {said}. At the last step tuning gains {material.interval(row)} more on tests "
            f"whose untouched base has not risen than on those whose base has ({int(row['n'])} pairs in the smaller group)."
        )
        yield finding(text, row, KEYS)


def _forgetting(material: Material) -> Iterator[dict[str, Any]]:
    """Counted over tests that models were tuned for and over all others, each considered together."""
    rows = material.last(material.rows("tuning_difference", "difference_of_means"))
    for _, there in rows.groupby(selection.PLACE, sort=False):
        home, own = (
            selection.related(there, {"in_domain", "instructed"}),
            selection.related(there, {"out_of_domain", "cross_task"}),
        )
        if own.empty:
            continue
        told, benefits = material.significant(own), material.significant(home) & (home["value"] > 0)
        falls, rises = int((told & (own["value"] < 0)).sum()), int((told & (own["value"] > 0)).sum())
        text = (
            f"Conclusion (iii) of arXiv 2408.06663, tuning helps, but a model may forget tasks that it is not tuned for"
            f"{about(rows, own.iloc[0])}: {'confirmed' if falls and benefits.any() else OPEN}. At the last step tuning raises "
            f"{int(benefits.sum())} of {len(home)} scores on what it is for significantly (Holm); of {len(own)} scores on other "
            f"tasks and out of domain it lowers {falls} and raises {rises}."
        )
        yield finding(text, own.iloc[0], COUNT, value=falls, low=None, high=None, n=len(own))


def _prompts(material: Material) -> Iterator[dict[str, Any]]:
    """For each other format: how the lead of the format tuned in changes along pre-training. At the first step of a family its
    sign says what less sensitivity is."""
    gaps = material.analysis[(material.analysis["analysis"] == "format_gap") & material.analysis["test"].isna()]
    gaps = gaps[gaps["train"].isna() & gaps["value"].notna() & gaps["group"].str.startswith("default_minus_")]
    gaps = gaps[gaps["format"].isna() | (gaps["format"] == "default")]
    place = [*selection.PLACE, "shots"]
    gaps = gaps.merge(material.ways[place], on=place)
    changes = gaps[gaps["estimator"] == "last_minus_first"]
    told = material.significant(changes)
    for index, row in changes.iterrows():
        first = _first(gaps, row)
        less = -row["value"] if first is None or first > 0 else row["value"]
        other = row["group"].removeprefix("default_minus_")
        text = (
            f"Conclusion (iv) of arXiv 2408.06663, tuned models are sensitive to the prompt, less so with more "
            f"pre-training{about(changes, row, 'recipe')}, format {other}: "
            f"{verdict(less, bool(told[index]))}. The lead of prompts in the "
            f"format tuned in over those in format {other} changes by {material.interval(row)} from the first to the last step, "
            f"on average over {int(row['n'])} pairs of task and test."
        )
        yield {"section": "formats"} | finding(text, row, KEYS)


def _first(gaps: pd.DataFrame, row: Any) -> float | None:
    """The mean gap at the first step of the same models."""
    keys = ["group", *selection.PLACE, "shots"]
    same = gaps[(gaps[keys] == row[keys]).all(axis=1) & (gaps["estimator"] == "difference_of_means")]
    same = same[same["recipe"].isna()] if pd.isna(row["recipe"]) else same[same["recipe"] == row["recipe"]]
    return float(same.sort_values("step")["value"].iloc[0]) if len(same) else None
