"""From the sums that are stored of an indicator to its value on each base, with its standard error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from workflow.errors import StudyError
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


def values(table: pd.DataFrame, settings: Mapping[str, Any], scores: pd.DataFrame) -> pd.DataFrame:
    """Value of each indicator on each base, higher is better: one row each, in the columns VALUES.

    table, scores: the gathered `indicators` and `scores`; settings: the study's `indicators`. All text domains (tasks)
    together, weighted by their tokens (bytes). error: standard error over documents and draws; spread: standard deviation
    over draws, null where there is one; n: documents, or scored rows; draws: masks, noises, tunings.
    Errors: StudyError where rows of an indicator were measured in different ways or cannot be compared in its unit.
    """
    rows: list[dict[str, Any]] = []
    for name, block in settings.items():
        if block["measure"] == SCORED:
            rows.extend(_of_scores(name, block, scores))
        else:
            own = table[table["indicator"] == name]
            check(name, block, own)
            rows.extend(_of_sums(name, block, own))
    return pd.DataFrame(rows, columns=VALUES)


def check(name: str, settings: Mapping[str, Any], rows: pd.DataFrame) -> None:
    """StudyError unless all rows of an indicator can be compared with each other."""
    if rows["manifest"].nunique() > 1:
        raise StudyError(
            f"indicator {name}: {_differing(rows, 'manifest')} were measured with other settings, texts or prompts; "
            "measure them again, or as indicators of different names"
        )
    if settings["per"] == "token" and rows["tokenization"].nunique() > 1:
        raise StudyError(
            f"config.yaml: indicators/{name}/per: token is not allowed, since {_differing(rows, 'tokenization')} cut the "
            "text into other tokens than the others; allowed: byte"
        )


def _differing(rows: pd.DataFrame, column: str) -> str:
    """The bases that are not like most of an indicator."""
    usual = rows[column].mode().iloc[0]
    others = rows[rows[column] != usual][BASE].drop_duplicates()
    named = [f"{family} at step {step}" for family, step in others.head(3).itertuples(index=False)]
    return ", ".join(named) + (f" and {len(others) - 3} more" if len(others) > 3 else "")


def _of_sums(name: str, settings: Mapping[str, Any], rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Values of an indicator that bases were run for."""
    how, per = transform(settings), settings["per"]
    for keys, own in rows[rows["variant"] == variant(settings)].groupby(BASE, sort=False):
        value, error, spread = estimate(own, per, how)
        whole = own[own["draw"].isna()]
        yield {
            **dict(zip(BASE, keys, strict=True)),
            "indicator": name,
            "measure": settings["measure"],
            "value": value,
            "error": error,
            "spread": spread,
            "n": int(whole["documents"].sum()),
            "draws": int(own["draw"].nunique()),
            "unit": f"{UNITS[how]} ({LOSS_UNITS[per]})",
        }


def estimate(rows: pd.DataFrame, per: str, how: str) -> tuple[float, float, float | None]:
    """Value, standard error and spread over draws of the rows of one base, one variant and any groups.

    Documents and draws are crossed: every document is read in every draw. With the loss a ratio of sums, its variance over
    documents follows by linearisation (Cochran, 1977, section 6.4); that over draws is added, less the interaction of
    both, which is part of either.
    """
    loss, over_documents = ratio(rows[rows["draw"].isna()], per)
    each = [ratio(own, per) for _, own in rows[rows["draw"].notna()].groupby("draw")]
    slope = abs(_slope(loss, per, how))
    if len(each) < 2:
        return _turned(loss, per, how), slope * math.sqrt(over_documents), None
    within = float(np.mean([variance for _, variance in each]))
    over_draws = float(np.var([one for one, _ in each], ddof=1)) / len(each)
    interaction = max(0.0, within - over_documents) / (len(each) - 1)
    variance = over_documents + max(0.0, over_draws - interaction)
    spread = float(np.std([_turned(one, per, how) for one, _ in each], ddof=1))
    return _turned(loss, per, how), slope * math.sqrt(variance), spread


def ratio(rows: pd.DataFrame, per: str) -> tuple[float, float]:
    """Loss of all documents together in nats a token or byte, and its variance over documents (infinite for one alone)."""
    of = {"token": "tokens", "byte": "bytes"}[per]
    moments = ["documents", of, "nll", "nll_nll", f"nll_{of}", f"{of}_{of}"]
    count, total, nll, squares, products, sizes = (float(rows[name].sum(skipna=False)) for name in moments)
    loss = nll / total
    squared = squares - 2 * loss * products + loss**2 * sizes
    variance = max(0.0, squared) / total**2 * count / (count - 1) if count > 1 else math.inf
    return loss, variance


def _turned(loss: float, per: str, how: str) -> float:
    """A loss in nats as a value; of a change that is better the larger it is, the change itself."""
    if how == "inv_ppl":
        return math.exp(-loss)
    stated = loss / NATS[per]
    return {"inv_loss": 1 / stated if stated else math.inf, "drop": stated}.get(how, -stated)


def _slope(loss: float, per: str, how: str) -> float:
    """The change of the value with the loss in nats."""
    if how == "inv_ppl":
        return -math.exp(-loss)
    return -NATS[per] / loss**2 if how == "inv_loss" else 1 / NATS[per]


def _of_scores(name: str, settings: Mapping[str, Any], scores: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The plain mean over tests of the scores of untouched bases; a base without one of them has no row."""
    wanted = {"recipe": "none", "suite": settings["suite"], "metric": settings["metric"]}
    wanted |= {"shots": settings["shots"], "test_format": settings["format"]}
    own = scores
    for column, value in wanted.items():
        own = own[own[column] == value]
    tests = settings.get("tests") or sorted(own["test"].unique())
    missing = sorted(set(tests) - set(own["test"])) if tests else ["any test"]
    if missing:
        raise StudyError(
            f"config.yaml: indicators/{name}: suite {settings['suite']!r} has no {settings['metric']!r} of {missing[0]} "
            f"with {settings['shots']} shots in format {settings['format']}"
        )
    own = own[own["test"].isin(tests) & own["value"].notna()]
    for keys, rows in own.groupby(BASE, sort=False):
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
