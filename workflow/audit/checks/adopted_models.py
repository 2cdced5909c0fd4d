"""Models tuned elsewhere that equal their base, that bring another tokenizer, or whose adapters name a base of no study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from workflow.audit.inputs import AuditInputs, finding
from workflow.storage import tables
from workflow.storage.files import json_object
from workflow.study import grid


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """Up to three findings for each model.

    An error for weights that equal the base's, or adapters that add nothing: every difference to the base is 0. A warning for
    adapters with a tokenizer other than the base's, since the base's is used, and a note for such full weights, since base and
    model read texts as different tokens. A note for adapters that name an unknown base, which may be another one.
    """
    for record in material.adopted:
        keys = tables.keys_of(record.with_suffix(""))
        rows = pd.DataFrame([{name: keys[name] for name in grid.MODEL_KEYS}])
        for severity, evidence in _remarks(json_object(Path(record))["remarks"]):
            yield finding(severity, rows, evidence)


def _remarks(remarks: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Severity and evidence of each remark."""
    if remarks["unchanged"]:
        what = "its adapters add nothing" if remarks["adapters"] else "its weights equal those of its base"
        yield "error", f"the model tuned elsewhere is its base: {what}"
    if parts := ", ".join(remarks["tokenizer"]):
        if remarks["adapters"]:
            yield "warning", f"the tokenizer beside the adapters is not used; it differs from the base's in {parts}"
        else:
            yield (
                "note",
                f"the model tuned elsewhere has another tokenizer than its base ({parts}), which it is tested with",
            )
    if remarks["unknown"] is not None:
        yield (
            "note",
            f"the adapters name {remarks['unknown']!r} as their base, which is none of the study's as far as the name tells",
        )
