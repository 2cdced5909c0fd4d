"""Indicators: one module for each measure, `measure(subject, settings, material, progress) -> Measurement`; their values.

What a base has to be run for is measured once and kept as sums; values are derived from these whenever they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflow.data.demonstrations import Rows, drawn, sample

CONTRACT = 2  # raised when what a measure means changes; 2: of texts without an EOS of the tokenizer's own
SCORED = "kshot"  # the measure that is made of scores, not of a base that is run
READ = ("per", "transform", "scoring")  # settings that say how sums become a value, not what is measured
UNMEASURED = (*READ, "batch_tokens")  # settings that leave the sums as they are


def measured(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the sums of an indicator depend on."""
    return {key: value for key, value in settings.items() if key not in UNMEASURED}


def tasks(settings: Mapping[str, Any]) -> list[str]:
    """The tasks whose rows an indicator reads."""
    if settings["measure"] == SCORED:
        return []
    return [settings["train"]] if "train" in settings else list(settings.get("tests", []))


def answered(settings: Mapping[str, Any], train: Rows, test: Rows) -> tuple[list[Rows], Rows]:
    """Of a task that `gold_answer` reads: the demonstrations of each draw, and the rows whose answers are read in all of them.

    Demonstrations are drawn as those of a suite are; no row that is one in any draw is read.
    """
    shown = [drawn(train or test, settings["shots"], settings["seed"] + draw) for draw in range(settings["draws"])]
    used = {row for own in shown for row, _ in own}
    rows = train if settings["rows"] == "train" else test
    return shown, sample([row for row in rows if row[0] not in used], settings.get("limit"), settings["seed"])


def weights(settings: Mapping[str, Any]) -> str:
    """Precision of the weights in memory; what is tuned stays fp32, whatever its matrix products are in."""
    return "fp32" if settings["measure"] == "tuning_probe" else settings["precision"]


def run_for(study: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The indicators of a study that a base has to be run for, by name."""
    return {name: block for name, block in study["indicators"].items() if block["measure"] != SCORED}


def transform(settings: Mapping[str, Any]) -> str:
    """How a loss of the indicator becomes its value: a key of UNITS."""
    return "rise" if settings["measure"] == "weight_noise" else settings["transform"]


def variant(settings: Mapping[str, Any]) -> str:
    """The loss of an indicator, among those stored, that its value is made of."""
    variants: dict[str, Any] = {
        "clm": "text",
        "span_corruption": settings.get("scoring"),
        "gold_answer": "answer",
        "tuning_probe": "drop" if transform(settings) == "drop" else "after",
        "weight_noise": "rise",
    }
    return variants[settings["measure"]]
