"""Learning rates chosen for each base, and declines with one rate for all steps beside those with a rate for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.report import selection
from workflow.report.findings import FindingTables, about, ci, finding, signed
from workflow.report.findings.turning_points import KEYS
from workflow.statistics import holm

SECTION = "tuned"
READS = ("own_choices", "analysis")
TABLE = "own_choices"
CHOICE = ["family", "train", "format", "recipe"]


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each search along a run; then one for each curve that both of two recipes have which differ in the rate."""
    choices = material.tables[TABLE]
    for _, rows in choices.groupby(CHOICE, sort=False):
        yield _chosen(choices, rows.sort_values(["step", "rate"]))
    yield from _beside(material)


def _chosen(choices: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Any]:
    """How the chosen rate moves along the steps of a run."""
    chosen = rows[rows["chosen"]]
    first, last = chosen.iloc[0], chosen.iloc[-1]
    several = [str(last[key]) for key in ("family", "format", "recipe") if choices[key].nunique() > 1]
    name = f"{last['train']} ({', '.join(several)})" if several else last["train"]
    if chosen["learning_rate"].nunique() == 1:
        text = f"The best learning rate of {name} is {last['learning_rate']:g} at all {len(chosen)} steps"
    else:
        other = int((chosen["learning_rate"] != last["learning_rate"]).sum())
        text = (
            f"The best learning rate of {name} is {first['learning_rate']:g} at step {first['step']} and "
            f"{last['learning_rate']:g} at step {last['step']}; {other} of {len(chosen)} steps have another one than the last"
        )
    text = f"{text} ({len(rows)} rates tried, lowest loss on held-out rows)."
    return finding(text, last, [*CHOICE, "step", "rate"], TABLE, value=last["learning_rate"], n=len(chosen))


def _beside(material: FindingTables) -> Iterator[dict[str, Any]]:
    """Declines of the same curve under both recipes of each pair; Holm's procedure is over all curves of both."""
    rows = material.rows("decline", "decline")
    rows = selection.related(rows[rows["group"] == "level"], {"in_domain", "instructed"})
    rows = rows[rows["recipe"].isin([name for pair in material.rate_twins for name in pair])]
    rows = rows.assign(significant=holm(rows["p_value"].to_numpy(dtype=float)) < 1 - material.level)
    for fixed, own in material.rate_twins:
        shared = [key for key in KEYS if key != "recipe"]
        pairs = rows[rows["recipe"] == fixed].merge(rows[rows["recipe"] == own], on=shared, suffixes=("", "_own"))
        for _, pair in pairs.iterrows():
            one, other = _fall(material, pair, ""), _fall(material, pair, "_own")
            text = (
                f"Decline on {pair['test']}{about(rows, pair)}, tuned on {pair['train']}: {one} with one learning rate for all "
                f"steps ({fixed}), {other} with the best rate of each step ({own}). {_verdict(pair)}"
            )
            yield finding(text, pair, KEYS)


def _fall(material: FindingTables, pair: Any, side: str) -> str:
    """The size of a decline in words."""
    verdict = "significant" if pair[f"significant{side}"] else "not significant"
    low = f"{ci(material.level)} at least {signed(pair[f'low{side}'])}, " if pd.notna(pair[f"low{side}"]) else ""
    return f"{signed(pair[f'value{side}'])} ({low}{verdict}, Holm)"


def _verdict(pair: Any) -> str:
    """What both declines together say."""
    fixed, own = bool(pair["significant"]), bool(pair["significant_own"])
    return {
        (True, True): "More pre-training hurts with either.",
        (True, False): "A decline is shown with the fixed rate only.",
        (False, True): "A decline is shown with the own rate only.",
        (False, False): "Neither shows a decline.",
    }[fixed, own]
