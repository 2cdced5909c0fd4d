"""When each test is learned: in pre-training, in tuning, in both, or not at all (analysis `learning`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from workflow.report import selection
from workflow.report.findings import FindingTables, about, finding, siblings

SECTION = "base"
READS = ("analysis",)
SETTLED = 0.9  # from this share of resamples on a sentence names the group alone
# From this share on it is the most likely group: of simulated tests without learning at most 5 % get another group by half.
LIKELY = 0.5
SHOWN = 0.01  # smallest share of resamples that a sentence mentions
NOTHING = "not_learned"  # where steps scatter, this is weak evidence: no sentence calls it likely
KEYS = ["analysis", "group", "family", "suite", "test", "test_format", "shots", "estimator"]
DECIDING = {  # the estimator that a finding is about
    "learned_in_pretraining": "rise_over_pretraining",
    "learned_in_tuning": "gain_by_tuning",
    "learned_in_both": "rise_over_pretraining",
    "not_learned": "rise_over_pretraining",
}


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each test in its suite's main format: its group, or its most likely group; a test without a group in
    half of the resamples is open."""
    whole = material.rows("learning")
    shares = whole[whole["estimator"] == "share_of_resamples"]
    for _, members in shares.groupby([*selection.PLACE, "test"], sort=False):
        ranked = members.sort_values("value", ascending=False, kind="stable")
        best = ranked.iloc[0]
        subject = f"{best['test']}{about(shares, best)}{', less is better' if material.less_is_better(best) else ''}"
        if best["value"] < LIKELY:
            yield finding(f"{subject}: open: {_between(ranked)}.", best, KEYS)
        else:
            yield _grouped(material, subject, ranked, dict(siblings(whole, best, KEYS)))


def _between(ranked: pd.DataFrame) -> str:
    """The groups that resamples fall into, the most frequent first."""
    rows = ranked[ranked["value"] >= SHOWN].to_dict("records")
    return ", ".join(f"{_called(row['group'])} ({row['value']:.0%} of resamples)" for row in rows)


def _called(group: str) -> str:
    """The name of a group in a sentence."""
    return "no learning established" if group == NOTHING else selection.named(group)


def _grouped(
    material: FindingTables, subject: str, ranked: pd.DataFrame, beside: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The finding about a test with a group: the group, the other groups unless one is settled, rise and gain."""
    best = ranked.iloc[0]
    group, settled = best["group"], best["value"] >= SETTLED
    deciding = beside.get(DECIDING[group], best)
    likely = "" if settled or group == NOTHING else "most likely "
    texts = [f"{subject}: {likely}{_between(ranked[:1] if settled else ranked)}"]
    if "rise_over_pretraining" in beside:
        texts.append(
            f"from the first step to the last the untouched base's score changes by "
            f"{material.interval(beside['rise_over_pretraining'])}{_scattered(group, beside['rise_over_pretraining'])}"
        )
    gain = beside.get("gain_by_tuning")
    texts.append(
        "no model is tuned in its domain"
        if gain is None
        else f"the largest gain by tuning, on a line over the steps, is {material.interval(gain)}"
    )
    return finding("; ".join(texts) + ".", deciding, KEYS)


def _scattered(group: str, rise: Mapping[str, Any]) -> str:
    """The reason why a significant change between two steps does not mean learning in pre-training; else nothing.

    The interval comes from the test rows of two steps. The group also requires a line through all steps, with their scatter.
    """
    if group in ("learned_in_pretraining", "learned_in_both") or pd.isna(rise["low"]) or rise["low"] <= 0:
        return ""
    return (
        ", but the line through all steps does not rise significantly or does not end significantly above the baseline"
    )
