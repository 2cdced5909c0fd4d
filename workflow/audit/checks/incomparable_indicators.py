"""Indicators whose numbers were not measured alike on all bases, or are no numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from workflow.audit.inputs import AuditInputs, counted, finding, listed
from workflow.indicators import aggregation
from workflow.study import indicators

COLUMNS = {
    "manifest": ("error", "with different settings, texts or prompts"),
    "tokenization": ("error", "on texts that were cut into different tokens, so that losses per token do not compare"),
    "versions": ("warning", "with different versions of packages"),
}


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """Errors for indicators that do not compare, warnings for those that other packages measured or that are not finite."""
    if material.indicators is None:
        return
    for name, block in indicators.run_for({"indicators": material.measures}).items():
        rows = material.indicators[material.indicators["indicator"] == name]
        for column, (severity, how) in COLUMNS.items():
            if column != "tokenization" or block["per"] == "token":
                yield from _differing(rows, name, column, severity, how)
        yield from _not_finite(rows, name, block)


def _differing(rows: pd.DataFrame, name: str, column: str, severity: str, how: str) -> Iterator[dict[str, Any]]:
    """The finding for bases of one indicator that were not measured like most."""
    bases = rows[[*aggregation.BASE, column]].drop_duplicates()
    if bases[column].nunique() < 2:
        return
    others = bases[bases[column] != bases[column].mode().iloc[0]]
    said = f" ({listed(bases[column].unique())})" if column == "versions" else ""
    evidence = (
        f"indicator {name} was measured {how}{said}: {_named(others)} are not like the other {len(bases) - len(others)}"
    )
    yield finding(severity, others, evidence, value=float(bases[column].nunique()), limit=1.0, n=len(bases))


def _not_finite(rows: pd.DataFrame, name: str, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The finding for bases whose value of one indicator is no finite number."""
    own = rows[(rows["variant"] == indicators.variant(settings)) & rows["draw"].isna()]
    sums = own.groupby(aggregation.BASE, as_index=False, sort=False)["nll"].sum(skipna=False)
    bad = sums[~np.isfinite(sums["nll"])]
    if len(bad):
        evidence = f"indicator {name} is no finite number on {_named(bad)}"
        yield finding("warning", bad, evidence, value=float(len(bad)), limit=0.0, n=len(sums))


def _named(bases: pd.DataFrame) -> str:
    """Bases by family and step."""
    rows = bases[aggregation.BASE].itertuples(index=False)
    return f"{counted(len(bases), 'base')} ({listed(f'{family} at step {step}' for family, step in rows)})"
