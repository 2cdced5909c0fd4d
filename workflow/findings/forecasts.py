"""How well indicators order bases before anything is tuned, beside chance and beside what the configs alone say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from workflow.findings import Material, finding

SECTION = "forecasts"
READS = ("forecasts",)
KEYS = ["cohort", "split", "forecaster", "kind", "source", "target", "subset", "ties"]
COUNTED = {"split": "every_pair", "subset": "all", "ties": "half"}
MEASURED = ("indicator", "combination")


def find(material: Material) -> Iterator[dict[str, Any]]:
    """For each target one finding about the best indicator or mean of indicators, over all pairs with half a point for a
    tie, and whether it tells more than all config fields together: as the best of many, by all of their gains at once."""
    table = material.tables["forecasts"]
    rows = table[(table[list(COUNTED)].eq(COUNTED)).all(axis=1) & table["accuracy"].notna()]
    for _, own in rows[rows["kind"].isin(MEASURED)].groupby(["cohort", "target"], sort=False):
        best = own.sort_values("accuracy", ascending=False, kind="stable").iloc[0]
        gains = own[["gain", "gain_low", "gain_high"]].set_axis(["value", "low", "high"], axis=1)
        told = bool(material.told(gains)[best.name])
        figures = {"value": best["accuracy"], "low": best["low"], "high": best["high"]}
        among = f"of {len(own)} indicators and their means {best['forecaster']}"
        text = (
            f"{best['target']} of {best['cohort']}: {among} orders most pairs of bases right, {material.interval(figures)} "
            f"of {int(best['n_pairs'])} (chance .5); {_beyond(material, best, told)}."
        )
        yield finding(text, best, KEYS, table="forecasts", **figures, n=best["n_bases"])


def _beyond(material: Material, row: Mapping[str, Any], told: bool) -> str:
    """Whether a forecaster tells more than the config."""
    gain = {"value": row["gain"], "low": row["gain_low"], "high": row["gain_high"]}
    if row["gain"] != row["gain"]:
        return "there is no config to compare it with"
    return f"against all config fields together {material.interval(gain)}{'' if told else ', not to be told from 0'}"
