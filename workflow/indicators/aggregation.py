"""Compute each indicator's value and standard error on each base from its stored sums."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from workflow.errors import StudyError
from workflow.settings import Indicator
from workflow.study.indicators import SCORED, transform, variant

VALUES = ["family", "step", "indicator", "measure", "value", "error", "spread", "n", "draws", "unit"]
BASE = ["family", "step"]
LOSS_UNITS = {"token": "nats a token", "byte": "bits a byte"}
NATS = {"token": 1.0, "byte": math.log(2)}  # in the unit that a loss is stated in
UNITS = {
    "inv_ppl": "1/perplexity",
    "inv_loss": "1/loss",
    "neg_loss": "-loss",
    "drop": "loss before - loss after",
    "rise": "loss - loss with noise",
}


def values(table: pd.DataFrame, settings: Mapping[str, Indicator], scores: pd.DataFrame) -> pd.DataFrame:
    """Return the value of each indicator on each base (higher is better), one row each, in the columns VALUES.

    table, scores: the gathered `indicators` and `scores`; settings: the study's `indicators`. A value is over
    all text domains (tasks) together, weighted by their tokens (bytes). error: standard error over documents and draws;
    spread: standard deviation over draws, null for a single one; n: documents, or scored rows; draws: masks, noises or
    fine-tuning probes.
    Errors: StudyError if rows of an indicator were measured in different ways or cannot be compared in its unit.
    """
    rows: list[dict[str, Any]] = []
    for name, block in settings.items():
        if block["measure"] == SCORED:
            rows.extend(_of_scores(name, block, scores))
        else:
            measured = table[table["indicator"] == name]
            check(name, block, measured)
            rows.extend(_of_sums(name, block, measured))
    return pd.DataFrame(rows, columns=VALUES)


def check(name: str, settings: Indicator, rows: pd.DataFrame) -> None:
    """Raise StudyError unless all rows of an indicator can be compared."""
    if rows["manifest"].nunique() > 1:
        raise StudyError(
            f"indicator {name}: {_differing(rows, 'manifest')} were measured with other settings, texts or prompts; "
            "measure them again, or give each its own indicator"
        )
    if settings["per"] == "token" and rows["tokenization"].nunique() > 1:
        raise StudyError(
            f"config.yaml: indicators/{name}/per: token is not allowed, since {_differing(rows, 'tokenization')} "
            "tokenize the text differently from the others; allowed: byte"
        )


def _differing(rows: pd.DataFrame, column: str) -> str:
    """Return the names of the bases whose value in a column differs from the most frequent one."""
    usual = rows[column].mode().iloc[0]
    others = rows[rows[column] != usual][BASE].drop_duplicates()
    named = [f"{family} at step {step}" for family, step in others.head(3).itertuples(index=False)]
    return ", ".join(named) + (f" and {len(others) - 3} more" if len(others) > 3 else "")


def _of_sums(name: str, settings: Indicator, rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the values of an indicator that was measured by running the bases."""
    unit, per = transform(settings), settings["per"]
    for keys, measured in rows[rows["variant"] == variant(settings)].groupby(BASE, sort=False):
        value, error, spread = estimate(measured, per, unit)
        all_draws = measured[measured["draw"].isna()]
        yield {
            **dict(zip(BASE, keys, strict=True)),
            "indicator": name,
            "measure": settings["measure"],
            "value": value,
            "error": error,
            "spread": spread,
            "n": int(all_draws["documents"].sum()),
            "draws": int(measured["draw"].nunique()),
            "unit": f"{UNITS[unit]} ({LOSS_UNITS[per]})",
        }


def estimate(rows: pd.DataFrame, per: str, unit: str) -> tuple[float, float, float | None]:
    """Return value, standard error and spread over draws for the rows of one base and variant, over all groups.

    Documents and draws are crossed: every document is used in every draw. The loss is a ratio of sums, so its variance over
    documents follows by linearisation (Cochran, 1977, section 6.4). The variance over draws is added, less the interaction of
    both, which either contains.
    """
    loss, over_documents = ratio(rows[rows["draw"].isna()], per)
    each = [ratio(draw_rows, per) for _, draw_rows in rows[rows["draw"].notna()].groupby("draw")]
    slope = abs(_slope(loss, per, unit))
    if len(each) < 2:
        return _turned(loss, per, unit), slope * math.sqrt(over_documents), None
    within = float(np.mean([variance for _, variance in each]))
    over_draws = float(np.var([draw_loss for draw_loss, _ in each], ddof=1)) / len(each)
    interaction = max(0.0, within - over_documents) / (len(each) - 1)
    variance = over_documents + max(0.0, over_draws - interaction)
    spread = float(np.std([_turned(draw_loss, per, unit) for draw_loss, _ in each], ddof=1))
    return _turned(loss, per, unit), slope * math.sqrt(variance), spread


def ratio(rows: pd.DataFrame, per: str) -> tuple[float, float]:
    """Return the loss of all documents together, in nats per token or byte, and its variance over documents (inf for one)."""
    size = {"token": "tokens", "byte": "bytes"}[per]
    moments = ["documents", size, "nll", "nll_nll", f"nll_{size}", f"{size}_{size}"]
    count, total, nll, squares, products, sizes = (float(rows[name].sum(skipna=False)) for name in moments)
    loss = nll / total
    squared = squares - 2 * loss * products + loss**2 * sizes
    variance = max(0.0, squared) / total**2 * count / (count - 1) if count > 1 else math.inf
    return loss, variance


def _turned(loss: float, per: str, unit: str) -> float:
    """Return the value for a loss in nats; for a change that should be large, the change."""
    if unit == "inv_ppl":
        return math.exp(-loss)
    stated = loss / NATS[per]
    return {"inv_loss": 1 / stated if stated else math.inf, "drop": stated}.get(unit, -stated)


def _slope(loss: float, per: str, unit: str) -> float:
    """Return the derivative of the value with respect to the loss in nats."""
    if unit == "inv_ppl":
        return -math.exp(-loss)
    return -NATS[per] / loss**2 if unit == "inv_loss" else 1 / NATS[per]


def _of_scores(name: str, settings: Indicator, scores: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the plain mean over tests of the bases' scores; a base that lacks one of them has no row."""
    wanted: dict[str, Any] = {"recipe": "none", "suite": settings["suite"], "metric": settings["metric"]}
    wanted |= {"shots": settings["shots"], "test_format": settings["format"]}
    selected = scores
    for column, value in wanted.items():
        selected = selected[selected[column] == value]
    tests = settings.get("tests") or sorted(selected["test"].unique())
    missing = sorted(set(tests) - set(selected["test"])) if tests else ["any test"]
    if missing:
        raise StudyError(
            f"config.yaml: indicators/{name}: suite {settings['suite']!r} has no {settings['metric']!r} of {missing[0]} "
            f"with {settings['shots']} shots in format {settings['format']}"
        )
    selected = selected[selected["test"].isin(tests) & selected["value"].notna()]
    for keys, rows in selected.groupby(BASE, sort=False):
        if set(rows["test"]) < set(tests):
            continue
        yield {
            **dict(zip(BASE, keys, strict=True)),
            "indicator": name,
            "measure": SCORED,
            "value": float(rows["value"].mean()),
            "error": float(np.sqrt((rows["error"] ** 2).sum(skipna=False))) / len(rows),
            "spread": None,
            "n": int(rows["n"].sum()),
            "draws": 1,
            "unit": settings["metric"],
        }
