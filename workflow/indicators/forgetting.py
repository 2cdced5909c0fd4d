"""What fine-tuning destroys: losses of fine-tuned models on text and on right answers, against those of their bases.

A score that is at chance before fine-tuning cannot fall. A loss can rise, so forgetting shows there as well (Bethune et al.,
2025, arXiv 2502.06042, measure it by the loss on pre-training text).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from workflow.errors import StudyError
from workflow.statistics import ends, normal, tested
from workflow.study import grid

MODEL = [key for key in grid.MODEL_KEYS if key != "seed"]
DOCUMENT = ["indicator", "corpus", "group", "id"]


def changes(before: pd.DataFrame, after: pd.DataFrame, level: float) -> list[dict[str, Any]]:
    """Return rows of `tables.FORGETTING` with the keys MODEL: each indicator on all its text, and by domain or task.

    before, after: losses of documents, columns of `tables.MEASURED` with the keys of bases and of models. A document's loss is
    its mean over draws and seeds. Errors: StudyError if a model and its base were measured on other documents.
    """
    bases = _documents(before, grid.BASE_KEYS)
    rows = []
    for keys, losses in after.groupby(MODEL, sort=False):
        model = dict(zip(MODEL, keys, strict=True))
        base = bases[(bases["family"] == model["family"]) & (bases["step"] == model["step"])]
        tuned = _documents(losses, MODEL)
        both = base.merge(tuned, on=DOCUMENT, how="outer", suffixes=("_base", ""), indicator="side")
        if (both["side"] != "both").any() or (both["bytes"] != both["bytes_base"]).any():
            raise StudyError(
                f"{grid.path(model, MODEL)}: was not measured on the documents of its base; delete its part below "
                "results/tuned_losses and run again"
            )
        constant = {**model, "seeds": int(losses["seed"].nunique())}
        rows += [{**constant, **row} for row in _compared(both, level)]
    return rows


def _documents(losses: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the bytes and the mean loss (nats) of each document over draws and seeds."""
    return losses.groupby([*keys, *DOCUMENT], as_index=False, sort=False)[["nll", "bytes"]].mean()


def _compared(both: pd.DataFrame, level: float) -> Iterator[dict[str, Any]]:
    """Yield the change of each indicator, on all documents and on each group if there are several."""
    for name, documents in both.groupby("indicator", sort=False):
        yield {"indicator": name, "group": None, **_change(documents, level)}
        if documents["group"].nunique() > 1:
            for group, members in documents.groupby("group", sort=False):
                yield {"indicator": name, "group": group, **_change(members, level)}


def _change(documents: pd.DataFrame, level: float) -> dict[str, Any]:
    """Return the change of the loss in bits per byte, with its interval over documents.

    The change is a ratio of sums, so its variance follows by linearisation (Cochran, 1977, section 6.4); Student's t with
    n - 1 degrees of freedom.
    """
    size, n = documents["bytes"].to_numpy(float), len(documents)
    rise = (documents["nll"] - documents["nll_base"]).to_numpy(float) / math.log(2)
    value = float(rise.sum() / size.sum())
    base = float(documents["nll_base"].sum() / math.log(2) / size.sum())
    error = float(np.sqrt(n / (n - 1) * ((rise - value * size) ** 2).sum()) / size.sum()) if n > 1 else 0.0
    margins = normal(error, max(1, n - 1))
    low, high = ends(value, margins, level)
    return {"base": base, "tuned": base + value, "value": value, "low": low, "high": high, "n": n,
            "p_value": tested(value, margins)}  # fmt: skip
