"""Indicators: one module for each measure, `measure(subject, settings, material, progress) -> Measurement`.

What needs a run of the base is measured once and stored as sums. Values are computed from the sums when they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflow.data.demonstrations import Rows, drawn, sample
from workflow.settings import Indicator

CONTRACT = 2  # raised when the meaning of a measure changes; 2: texts without the tokenizer's EOS
SCORED = "kshot"  # the measure that is computed from scores, without a run of the base
READ = ("per", "transform", "scoring")  # settings of how sums become a value
UNMEASURED = (*READ, "batch_tokens")  # settings that do not change the sums


def measured(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the stored sums of an indicator depend on."""
    return {key: value for key, value in settings.items() if key not in UNMEASURED}


def tasks(settings: Mapping[str, Any]) -> list[str]:
    """The tasks whose rows an indicator reads."""
    if settings["measure"] == SCORED:
        return []
    return [settings["train"]] if "train" in settings else list(settings.get("tests", []))


def answered(settings: Mapping[str, Any], train: Rows, test: Rows) -> tuple[list[Rows], Rows]:
    """For a task of `gold_answer`: the few-shot examples of each draw, and the rows that are scored in all draws.

    Few-shot examples are drawn as in a suite. A row that is an example in any draw is not scored.
    """
    shown = [drawn(train or test, settings["shots"], settings["seed"] + draw) for draw in range(settings["draws"])]
    used = {row for row_key in shown for row, _ in row_key}
    rows = train if settings["rows"] == "train" else test
    return shown, sample([row for row in rows if row[0] not in used], settings.get("limit"), settings["seed"])


def weights(settings: Mapping[str, Any]) -> str:
    """Precision of the weights in memory. Trained weights stay fp32, whatever the precision of the matrix products."""
    return "fp32" if settings["measure"] == "tuning_probe" else settings["precision"]


COMPARED = ("clm", "gold_answer")  # measures that are compared between a fine-tuned model and its base


def run_for(blocks: Mapping[str, Indicator]) -> dict[str, Indicator]:
    """The indicators among some blocks of a study that need a run of the base, by name."""
    return {name: block for name, block in blocks.items() if block["measure"] != SCORED}


def transform(settings: Mapping[str, Any]) -> str:
    """How a loss becomes the indicator's value: a key of UNITS."""
    return "rise" if settings["measure"] == "weight_noise" else settings["transform"]


def variant(settings: Mapping[str, Any]) -> str:
    """The stored loss that an indicator's value is computed from."""
    variants: dict[str, Any] = {
        "clm": "text",
        "span_corruption": settings.get("scoring"),
        "gold_answer": "answer",
        "tuning_probe": "drop" if transform(settings) == "drop" else "after",
        "weight_noise": "rise",
    }
    return variants[settings["measure"]]
