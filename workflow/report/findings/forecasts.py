"""How often indicators order bases right before any tuning, compared with chance and with the config fields; and the main
conclusions of arXiv 2504.12491: perplexity orders bases against the outcome, learning to compare does better than any single
indicator, and shortlists hold the best base."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from workflow.report.findings import FindingTables, finding, half_width
from workflow.statistics import POWER, normal_width

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


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """For each target the best indicator or mean of indicators, then each conclusion of the paper that the study can test."""
    table = material.tables["forecasts"]
    rows = table[(table[list(COUNTED)].eq(COUNTED)).all(axis=1) & table["accuracy"].notna()]
    candidates = rows[rows["kind"].isin(MEASURED) & ~rows["chosen_on_targets"].fillna(False).astype(bool)]
    for _, members in candidates.groupby(["cohort", "target"], sort=False):
        yield _best(material, members)
    for _, row in rows[rows["kind"] == "indicator"].iterrows():
        if PERPLEXITY.search(row["forecaster"]) and not MASKED.search(row["forecaster"]):
            yield _perplexity(material, row)
    learned = rows[(rows["forecaster"] == LEARNED) & (rows["source"] == rows["target"])]
    leads = learned[["lead", "lead_low", "lead_high", "lead_p_value"]].set_axis(
        ["value", "low", "high", "p_value"], axis=1
    )
    leads = leads.assign(n=learned["n_bases"])
    sure, small = material.significant(leads), material.detectable(leads)
    for index, row in learned.iterrows():
        yield _comparing(material, row, bool(sure[index]), float(small[index]))
    yield from _shortlists(material)


def _best(material: FindingTables, members: pd.DataFrame) -> dict[str, Any]:
    """The best of a target's indicators and their means, with interval and p-values corrected for choosing it."""
    best = members.sort_values("accuracy", ascending=False, kind="stable").iloc[0]
    figures = {"value": best["accuracy"], "low": best["joint_low"], "high": best["joint_high"]}
    text = (
        f"{_of(best)}: the best of {len(members)} indicators and their means, {best['forecaster']}, orders "
        f"{material.interval(figures)} of {int(best['n_pairs'])} pairs of bases right; chance is 0.5: "
        f"{_verdict(material, best['p_value'], figures)}{_chosen(best)}; {_beyond(material, best)}."
    )
    return finding(text, best, KEYS, table="forecasts", **figures, n=best["n_bases"])


def _of(row: Mapping[str, Any]) -> str:
    """Target and cohort."""
    return f"{row['target']} of cohort {row['cohort']}"


def _chosen(row: Mapping[str, Any]) -> str:
    """The note on the correction of interval and p-value, where there are any."""
    return "" if pd.isna(row["p_value"]) else ", corrected for choosing the best"


def _verdict(material: FindingTables, p_value: float | None, figures: Mapping[str, Any]) -> str:
    """Significant, or not significant with the detectable difference, by a p-value corrected for all forecasters of a target.

    figures: the estimate with its joint interval.
    """
    if p_value is None or pd.isna(p_value):
        return "too few bases to test"
    if p_value < 1 - material.level:
        return "significant"
    return f"not significant ({_detectable(_smallest(figures, material.level))})"


def _detectable(difference: float) -> str:
    return f"detectable difference {difference:.3f}, power {POWER:g}"


def _smallest(figures: Mapping[str, Any], level: float) -> float:
    """The true difference that is found with power POWER or more: the half-width of the joint interval, and by how much a normal
    estimate falls short of the truth in the other cases. A joint interval is no narrower than a single one.
    """
    return half_width(figures) * (1 + normal_width(2 * POWER - 1) / normal_width(level))


def _beyond(material: FindingTables, row: Mapping[str, Any]) -> str:
    """The gain of a forecaster over the config fields."""
    if pd.isna(row["gain"]):
        return "no forecast from config fields to compare with"
    gain = {"value": row["gain"], "low": row["gain_joint_low"], "high": row["gain_joint_high"]}
    verdict = _verdict(material, row["gain_p_value"], gain)
    return f"gain over all config fields together {material.interval(gain)}: {verdict}"


def _perplexity(material: FindingTables, row: Mapping[str, Any]) -> dict[str, Any]:
    """Perplexity orders bases with the outcome, against it, or neither."""
    figures = {"value": row["accuracy"], "low": row["joint_low"], "high": row["joint_high"]}
    test = _verdict(material, row["p_value"], figures)
    against = row["accuracy"] < 0.5
    if test == "significant":
        side, held = ("against", "confirms") if against else ("with", "contradicts")
        verdict = f"significantly {side} the outcome, which {held}"
    else:
        verdict = f"{test}, which neither confirms nor contradicts"
    text = (
        f"{_of(row)}: perplexity ({row['forecaster']}) orders {material.interval(figures)} of "
        f"{int(row['n_pairs'])} pairs of bases right; chance is 0.5: {verdict} {PAPER}."
    )
    return finding(text, row, KEYS, table="forecasts", **figures, n=row["n_bases"])


def _comparing(material: FindingTables, row: Mapping[str, Any], sure: bool, small: float) -> dict[str, Any]:
    """The lead of a classifier of pairs, fitted on other bases, over the best single indicator. small: the detectable lead."""
    lead = {"value": row["lead"], "low": row["lead_low"], "high": row["lead_high"]}
    unsure = "not significant (Holm)" if pd.isna(small) else f"not significant (Holm; {_detectable(small)})"
    verdict = "significant (Holm)" if sure else unsure
    paper = f"{PAPER}, where learning to compare does better"
    held = ("confirms" if row["lead"] > 0 else "contradicts") if sure else "neither confirms nor contradicts"
    text = (
        f"{_of(row)}: learning to compare ({row['forecaster']} on all indicators, fitted on other bases) orders "
        f"{row['accuracy']:.3f} of {int(row['n_pairs'])} pairs right, a difference of {material.interval(lead)} to the best "
        f"single indicator: {verdict}, which {held} {paper}."
    )
    return finding(text, row, KEYS, table="forecasts", **lead, n=row["n_bases"])


def _shortlists(material: FindingTables) -> Iterator[dict[str, Any]]:
    """The length of the shortlist that holds the best base, in random splits of the bases."""
    table = material.tables.get("rankings")
    if table is None:
        return
    rows = table[(table["split"] == "random") & (table["forecaster"] == LEARNED) & (table["source"] == table["target"])]
    for _, members in rows.groupby(["cohort", "target"], sort=False):
        named = {statistic: part for statistic, part in members.groupby("statistic")}
        if not {"shortlist", "longest_shortlist", "recall_of_best"} <= set(named):
            continue
        row, longest = named["shortlist"].iloc[0], named["longest_shortlist"]["value"].iloc[0]
        recall = named["recall_of_best"].set_index("k")["value"]
        among = int(recall.index.max())
        verdict = "confirms" if 2 * longest < among else "contradicts"
        text = (
            f"{_of(row)}: ordered by {LEARNED}, the shortlist that holds the best of {among} held-out bases has "
            f"{row['value']:.1f} bases on average over {int(row['n'])} random splits ({material.level:.0%} of splits between "
            f"{row['low']:.1f} and {row['high']:.1f}; by chance {(among + 1) / 2:.1f}) and at most {longest:.0f}, which "
            f"{verdict} {PAPER}, where less than half of the bases always sufficed."
        )
        yield finding(text, row, RANKED, table="rankings")
