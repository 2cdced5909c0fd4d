"""When each test is learned: in pre-training, in tuning, in both, or not at all (analysis `learning`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from workflow.report import selection
from workflow.report.findings import Material, about, finding, siblings

SECTION = "base"
READS = ("analysis",)
SETTLED = 0.9  # share of resamples in one group from which on a test is said to be in it
# Share from which on it most likely is: of simulated tests that teach nothing at most 5 % get another group by half.
LIKELY = 0.5
SHOWN = 0.01  # share of resamples that a sentence speaks of
NOTHING = "not_learned"  # that nothing is found says little where steps scatter: no sentence calls it likely
KEYS = ["analysis", "group", "family", "suite", "test", "test_format", "shots", "estimator"]
DECIDING = {  # the number that a finding is about
    "learned_in_pretraining": "rise_over_pretraining",
    "learned_in_tuning": "gain_by_tuning",
    "learned_in_both": "rise_over_pretraining",
    "not_learned": "rise_over_pretraining",
}


def find(material: Material) -> Iterator[dict[str, Any]]:
    """One finding for each test in the main way of testing: in which group it is, or most likely is; a test that no group
    holds in every second resample is not settled."""
    whole = material.rows("learning")
    shares = whole[whole["estimator"] == "share_of_resamples"]
    for _, own in shares.groupby([*selection.PLACE, "test"], sort=False):
        ranked = own.sort_values("value", ascending=False, kind="stable")
        best = ranked.iloc[0]
        place = f"{best['test']}{about(shares, best)}"
        if best["value"] < LIKELY:
            yield finding(f"{place}: not settled whether {_between(ranked)}.", best, KEYS)
        else:
            yield _grouped(material, place, ranked, dict(siblings(whole, best, KEYS)))


def _between(ranked: pd.DataFrame) -> str:
    """The groups that resamples fall into, the most frequent first."""
    there = ranked[ranked["value"] >= SHOWN].to_dict("records")
    return ", ".join(f"{_called(row['group'])} ({row['value']:.0%} of resamples)" for row in there)


def _called(group: str) -> str:
    """What a sentence calls a group."""
    return "no learning found" if group == NOTHING else selection.named(group)


def _grouped(
    material: Material, place: str, ranked: pd.DataFrame, beside: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """A test in one group, by the number that puts it there; the others that it may be in where that is not settled."""
    best = ranked.iloc[0]
    group, settled = best["group"], best["value"] >= SETTLED
    deciding = beside.get(DECIDING[group], best)
    likely = "" if settled or group == NOTHING else "most likely "
    texts = [f"{place}: {likely}{_between(ranked[:1] if settled else ranked)}"]
    if "rise_over_pretraining" in beside:
        texts.append(
            f"from the first step to the last the untouched base's score changes by "
            f"{material.interval(beside['rise_over_pretraining'])}"
        )
    gain = beside.get("gain_by_tuning")
    texts.append("no model is tuned for it" if gain is None else f"tuning adds up to {material.interval(gain)}")
    return finding("; ".join(texts) + ".", deciding, KEYS)
