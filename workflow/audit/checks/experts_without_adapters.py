"""Mixture-of-experts models tuned with adapters that do not reach the experts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import AuditInputs, finding
from workflow.study import grid

KEYS = ["family", "recipe"]


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A note for each family and recipe, with the share of the layers' weights that adapters reach."""
    cells = [keys | facts["adapters"] for keys, facts in material.settings if facts.get("adapters")]
    table = pd.DataFrame(cells, columns=[*grid.CELL_KEYS, "layers", "reached", "experts"])
    for _, rows in table[table["experts"] > 0].groupby(KEYS):
        layers, reached, experts = (float(rows[name].iloc[0]) for name in ("layers", "reached", "experts"))
        evidence = (
            f"adapters reach {reached / layers:.1%} of the layers' weights; {experts / layers:.1%} are weights of experts "
            "without adapters, so the difference between LoRA and full fine-tuning may be larger than for dense models"
        )
        yield finding("note", rows[KEYS], evidence, value=reached / layers, n=len(rows))
