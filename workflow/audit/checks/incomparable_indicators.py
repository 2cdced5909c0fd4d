"""Indicators that were measured differently on some bases, or are not finite."""

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
    "tokenization": ("error", "on texts with different tokenizations, so that losses per token are not comparable"),
    "versions": ("warning", "with different versions of packages"),
}


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """Errors for indicators that are not comparable; warnings for different package versions and values that are not finite."""
    if material.indicators is None:
        return
    for name, block in indicators.run_for(material.measures).items():
        rows = material.indicators[material.indicators["indicator"] == name]
        for column, (severity, difference) in COLUMNS.items():
            if column != "tokenization" or block["per"] == "token":
                yield from _differing(rows, name, column, severity, difference)
        yield from _not_finite(rows, name, block)


def _differing(rows: pd.DataFrame, name: str, column: str, severity: str, difference: str) -> Iterator[dict[str, Any]]:
    """The finding on bases that were measured differently from most, for one indicator."""
    bases = rows[[*aggregation.BASE, column]].drop_duplicates()
    if bases[column].nunique() < 2:
        return
    others = bases[bases[column] != bases[column].mode().iloc[0]]
    versions = f" ({listed(bases[column].unique())})" if column == "versions" else ""
    evidence = (
        f"indicator {name} was measured {difference}{versions}: {_named(others)} differ from "
        f"the other {len(bases) - len(others)}"
    )
    yield finding(severity, others, evidence, value=float(bases[column].nunique()), limit=1.0, n=len(bases))


def _not_finite(rows: pd.DataFrame, name: str, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The finding on bases whose value of one indicator is not finite."""
    values = rows[(rows["variant"] == indicators.variant(settings)) & rows["draw"].isna()]
    sums = values.groupby(aggregation.BASE, as_index=False, sort=False)["nll"].sum(skipna=False)
    bad = sums[~np.isfinite(sums["nll"])]
    if len(bad):
        evidence = f"indicator {name} is not finite on {_named(bad)}"
        yield finding("warning", bad, evidence, value=float(len(bad)), limit=0.0, n=len(sums))


def _named(bases: pd.DataFrame) -> str:
    """Bases by family and step."""
    rows = bases[aggregation.BASE].itertuples(index=False)
    return f"{counted(len(bases), 'base')} ({listed(f'{family} at step {step}' for family, step in rows)})"
