"""Where more pre-training begins to add less: to untouched bases, to tuned models, to what tuning gains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from workflow import drawing
from workflow.curves import PER, unit
from workflow.findings import Material, about, finding, siblings

SECTION = "base"
READS = ("analysis",)
LEVEL = 0.05  # of a bend's p-value
KEYS = [
    "analysis", "group", "family", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"
]  # fmt: skip


def find(material: Material) -> Iterator[dict[str, Any]]:
    """One finding for each curve with a bend; for each sort of curve one that counts those without."""
    whole = material.rows("turning_point")
    turns = drawing.related(whole[whole["estimator"] == "turning_step"], {"base", "in_domain", "instructed"})
    span = (
        material.analysis.loc[material.analysis["analysis"] == "performance"]
        .groupby("family")["step"]
        .agg(["min", "max"])
    )
    for _, own in turns.groupby([*drawing.PLACE, "group", turns["train"] == "none"], sort=False):
        for _, row in own[own["p_value"] < LEVEL].sort_values("value", kind="stable").iterrows():
            steps = unit(*span.loc[row["family"]])
            text = _bend(material, turns, row, dict(siblings(whole, row, KEYS)), steps)
            yield _placed(row) | finding(text, row, KEYS)
        yield _placed(own.iloc[0]) | _straight(turns, own)


def _placed(row: Mapping[str, Any]) -> dict[str, str]:
    """Where in the report a curve belongs."""
    return {"section": SECTION if row["train"] == "none" else "tuned"}


def _curve(turns: pd.DataFrame, row: Mapping[str, Any]) -> str:
    """What a curve is of."""
    if row["train"] == "none":
        return f"{row['test']}{about(turns, row)}, untouched base"
    what = "tuned on" if row["group"] == "level" else "gain by tuning on"
    return f"{row['test']}{about(turns, row)}, {what} {row['train']}"


def _bend(material: Material, turns: pd.DataFrame, row: Any, beside: Mapping[str, Any], steps: int) -> str:
    before, after = beside["slope_before"], beside["slope_after"]
    verb = "rises" if before["value"] > 0 else "falls"
    sure = "" if before["low"] * before["high"] > 0 else ", which cannot be told from 0,"
    range_ = f"{material.level:.0%} {row['low']:.0f} to {row['high']:.0f}"
    rest = {name: after[name] * steps / PER * 100 for name in ("value", "low", "high")}
    told = "" if after["low"] * after["high"] > 0 else ", not to be told from 0"
    return (
        f"{_curve(turns, row)}: {verb}{sure} until step {row['value']:.0f} ({range_}; a straight line fits less well, "
        f"p = {row['p_value']:.3f}); beyond it {material.interval(rest, '+.2f')} points for {steps:,} steps{told}."
    )


def _straight(turns: pd.DataFrame, own: pd.DataFrame) -> dict[str, Any]:
    """How many curves of a sort a straight line fits as well."""
    row, straight = own.iloc[0], int((own["p_value"] >= LEVEL).sum())
    sort = (
        "untouched bases"
        if row["train"] == "none"
        else "tuned models"
        if row["group"] == "level"
        else "gains by tuning"
    )
    text = (
        f"A straight line fits {straight} of {len(own)} curves of {sort}{about(turns, row)} as well as one with a bend."
    )
    keys = [key for key in KEYS if key not in ("train", "format", "recipe", "test")]
    return finding(text, row, keys, value=straight, low=None, high=None, n=len(own))
