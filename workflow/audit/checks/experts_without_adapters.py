"""Mixtures of experts tuned with adapters that leave experts as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import AuditInputs, finding
from workflow.study import grid

KEYS = ["family", "recipe"]


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A note for each family and recipe, with the share of the weights of the layers that adapters reach."""
    cells = [keys | facts["adapters"] for keys, facts in material.settings() if facts.get("adapters")]
    table = pd.DataFrame(cells, columns=[*grid.CELL_KEYS, "layers", "reached", "experts"])
    for _, rows in table[table["experts"] > 0].groupby(KEYS):
        layers, reached, experts = (float(rows[name].iloc[0]) for name in ("layers", "reached", "experts"))
        evidence = (
            f"adapters reach {reached / layers:.1%} of the weights of the layers; {experts / layers:.1%} are of experts "
            "that have none and stay as they are, so a tuning of all weights may differ more than it does elsewhere"
        )
        yield finding("note", rows[KEYS], evidence, value=reached / layers, n=len(rows))
