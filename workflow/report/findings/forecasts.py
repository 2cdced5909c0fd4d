"""How well indicators order bases before anything is tuned, beside chance and beside what the configs alone say; and whether
the main conclusions of arXiv 2504.12491 hold here: that perplexity orders bases against the outcome, that learning to compare
pairs does better than any single indicator, and that shortlists hold the best base."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from workflow.report.findings import Material, finding
from workflow.statistics import holm

SECTION = "forecasts"
READS = ("forecasts",)
KEYS = ["cohort", "split", "forecaster", "kind", "source", "target", "subset", "ties"]
RANKED = ["cohort", "split", "forecaster", "source", "target", "statistic", "k"]
COUNTED = {"split": "every_pair", "subset": "all", "ties": "half"}
MEASURED = ("indicator", "combination")
LEARNED = "lightgbm"  # the comparer that the paper reports first
PERPLEXITY = re.compile("ppl|perplexity")
MASKED = re.compile("(^|_)sc(_|$)")  # span corruption, which the paper sets against conventional perplexity
PAPER = "arXiv 2504.12491"


def find(material: Material) -> Iterator[dict[str, Any]]:
    """For each target the best indicator or mean of indicators, then each conclusion of the paper that the study can judge."""
    table = material.tables["forecasts"]
    rows = table[(table[list(COUNTED)].eq(COUNTED)).all(axis=1) & table["accuracy"].notna()]
    candidates = rows[rows["kind"].isin(MEASURED) & ~rows["chosen_on_targets"].fillna(False).astype(bool)]
    for _, own in candidates.groupby(["cohort", "target"], sort=False):
        yield _best(material, own)
    for _, row in rows[rows["kind"] == "indicator"].iterrows():
        if PERPLEXITY.search(row["forecaster"]) and not MASKED.search(row["forecaster"]):
            yield _perplexity(material, row)
    learned = rows[(rows["forecaster"] == LEARNED) & (rows["source"] == rows["target"])]
    sure = holm(learned["lead_p_value"].astype(float).fillna(1.0).to_numpy()) < 1 - material.level
    for (_, row), told in zip(learned.iterrows(), sure, strict=True):
        yield _comparing(material, row, bool(told))
    yield from _shortlists(material)


def _best(material: Material, own: pd.DataFrame) -> dict[str, Any]:
    """The best of a target's indicators and means of them, by an interval and p-values that hold for the best of all."""
    best = own.sort_values("accuracy", ascending=False, kind="stable").iloc[0]
    figures = {"value": best["accuracy"], "low": best["joint_low"], "high": best["joint_high"]}
    text = (
        f"{_of(best)}: of {len(own)} indicators and their means {best['forecaster']} orders most pairs of "
        f"bases right, {material.interval(figures)} of {int(best['n_pairs'])}, corrected for choosing the best; chance is .5: "
        f"{_verdict(best['p_value'], 1 - material.level)}; {_beyond(material, best)}."
    )
    return finding(text, best, KEYS, table="forecasts", **figures, n=best["n_bases"])


def _of(row: Mapping[str, Any]) -> str:
    """What is forecast of which bases."""
    return f"{row['target']} of {row['cohort']}"


def _verdict(p_value: float | None, limit: float) -> str:
    """Significant or not, by a p-value that is corrected for all forecasters of the target."""
    if pd.isna(p_value):
        return "too few bases to test"
    return "significant" if p_value < limit else "not significant"


def _beyond(material: Material, row: Mapping[str, Any]) -> str:
    """Whether a forecaster tells more than the config."""
    if pd.isna(row["gain"]):
        return "there is no config to compare it with"
    gain = {"value": row["gain"], "low": row["gain_joint_low"], "high": row["gain_joint_high"]}
    verdict = _verdict(row["gain_p_value"], 1 - material.level)
    return f"against all config fields together {material.interval(gain)}: {verdict}"


def _perplexity(material: Material, row: Mapping[str, Any]) -> dict[str, Any]:
    """Whether perplexity orders bases with the outcome, against it, or neither."""
    figures = {"value": row["accuracy"], "low": row["joint_low"], "high": row["joint_high"]}
    sure = pd.notna(row["p_value"]) and row["p_value"] < 1 - material.level
    against = row["accuracy"] < 0.5
    said = "against the outcome" if against else "with the outcome"
    verdict = (
        f"significantly {said}, which {'confirms' if against else 'contradicts'} {PAPER}"
        if sure
        else (f"neither with nor against the outcome significantly, so {PAPER} is neither confirmed nor contradicted")
    )
    text = (
        f"{_of(row)}: perplexity ({row['forecaster']}) orders {material.interval(figures)} of "
        f"{int(row['n_pairs'])} pairs of bases right, chance is .5: {verdict}."
    )
    return finding(text, row, KEYS, table="forecasts", **figures, n=row["n_bases"])


def _comparing(material: Material, row: Mapping[str, Any], sure: bool) -> dict[str, Any]:
    """Whether a classifier of pairs, fitted on other bases, does better than the best single indicator."""
    lead = {"value": row["lead"], "low": row["lead_low"], "high": row["lead_high"]}
    verdict = "significant (Holm)" if sure else "not significant (Holm)"
    paper = f"{PAPER}, where learning to compare does better"
    held = ("confirms" if row["lead"] > 0 else "contradicts") if sure else "neither confirms nor contradicts"
    text = (
        f"{_of(row)}: learning to compare ({row['forecaster']} on all indicators, fitted on other bases) orders "
        f"{row['accuracy']:.3f} of {int(row['n_pairs'])} pairs right, {material.interval(lead)} more than the best single "
        f"indicator: {verdict}, which {held} {paper}."
    )
    return finding(text, row, KEYS, table="forecasts", **lead, n=row["n_bases"])


def _shortlists(material: Material) -> Iterator[dict[str, Any]]:
    """How long a shortlist has to be to hold the best base, in random splits of the bases."""
    table = material.tables.get("rankings")
    if table is None:
        return
    rows = table[(table["split"] == "random") & (table["forecaster"] == LEARNED) & (table["source"] == table["target"])]
    for _, own in rows.groupby(["cohort", "target"], sort=False):
        named = {statistic: part for statistic, part in own.groupby("statistic")}
        if not {"shortlist", "longest_shortlist", "recall_of_best"} <= set(named):
            continue
        row, longest = named["shortlist"].iloc[0], named["longest_shortlist"]["value"].iloc[0]
        recall = named["recall_of_best"].set_index("k")["value"]
        among, half = int(recall.index.max()), int(recall.index.max()) // 2
        worth = "confirms" if longest <= half else "contradicts"
        text = (
            f"{_of(row)}: ordered by {LEARNED}, the shortlist that holds the best of {among} held-out bases has "
            f"{row['value']:.1f} on average over {int(row['n'])} random splits ({material.level:.0%} of splits between "
            f"{row['low']:.1f} and {row['high']:.1f}; {(among + 1) / 2:.1f} by chance) and {longest:.0f} at most, which {worth} "
            f"{PAPER}, where less than half of the bases always sufficed."
        )
        yield finding(text, row, RANKED, table="rankings")
