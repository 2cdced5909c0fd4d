"""Scored rows as samples: the level of a model on a test, and what tuning changes of it, seeds kept apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow import task
from workflow.metrics import PRIMARY
from workflow.statistics import Resampling

Values = NDArray[np.float64]

PAIR_KEYS = ["family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots"]
ROW_KEYS = ["family", "step", "suite", "test", "test_format", "shots", "id"]


@dataclass(frozen=True)
class Sample:
    """Values of a model on the rows of a test in the test's primary metric, or what tuning changed of them.

    keys: PAIR_KEYS and their values; values: shape (seeds, rows).
    """

    keys: dict[str, Any]
    values: Values

    def resampled(self, how: Resampling) -> Values:
        """Means over resampled rows, and over resampled seeds where there are several: one for each resample.

        Seeds and rows are crossed, so both are resampled as a whole (the "pigeonhole" bootstrap, Owen 2007).
        """
        seeds, rows = self.values.shape
        seed_weights = np.concatenate(list(replace(how, seed=how.seed + 1).weights(seeds)))
        by_row = np.concatenate([weights @ self.values.T for weights in how.weights(rows)])
        return np.einsum("bs,bs->b", seed_weights, by_row) / (seeds * rows)


def levels(items: pd.DataFrame) -> Iterator[Sample]:
    """Every model's values on every test; the untouched base is one of the models (train `none`)."""
    yield from _samples(_primary(items), "value")


def differences(items: pd.DataFrame) -> Iterator[Sample]:
    """Every tuned model minus its own base on every test, row by row.

    Errors: ValueError when the base was not scored on the same rows.
    """
    rows = _primary(items)
    base = rows[rows["recipe"] == "none"].set_index(ROW_KEYS)["value"]
    tuned = rows[rows["recipe"] != "none"].join(base.rename("base"), on=ROW_KEYS)
    if tuned["base"].isna().any():
        place = tuned[tuned["base"].isna()].iloc[0][PAIR_KEYS].to_dict()
        raise ValueError(f"the untouched base lacks rows that its tuned model was scored on: {place}")
    yield from _samples(tuned.assign(difference=tuned["value"] - tuned["base"]), "difference")


def _primary(items: pd.DataFrame) -> pd.DataFrame:
    """The rows of each test's primary metric."""
    metric = {test: PRIMARY[task.KINDS[task.load(test).kind].method] for test in items["test"].unique()}
    return items[items["metric"] == items["test"].map(metric)]


def _samples(rows: pd.DataFrame, column: str) -> Iterator[Sample]:
    """One sample for each model and test.

    Errors: ValueError when a seed lacks rows that another has.
    """
    for keys, group in rows.groupby(PAIR_KEYS, sort=True):
        values = group.pivot(index="seed", columns="id", values=column).to_numpy(dtype=float)
        if np.isnan(values).any():
            raise ValueError(
                f"the seeds of a model were scored on different rows: {dict(zip(PAIR_KEYS, keys, strict=True))}"
            )
        yield Sample(dict(zip(PAIR_KEYS, keys, strict=True)), values)


def estimate(keys: dict[str, Any], value: float, resampled: Values, how: Resampling, **rest: Any) -> dict[str, Any]:
    """A row of `tables.ANALYSIS`: a mean with the interval of its resamples."""
    low, high = how.bounds(resampled)
    return {**keys, "value": value, "low": low, "high": high, **rest}


def pooled(samples: Sequence[Sample], how: Resampling) -> tuple[float, Values]:
    """The plain mean over several tests, and its resamples: tests are resampled, and rows and seeds within each drawn."""
    # Tests have rows of their own, so each is resampled by a seed of its own; a test that is drawn twice is resampled twice.
    within = np.stack([sample.resampled(replace(how, seed=how.seed + 2 + i)) for i, sample in enumerate(samples)])
    generator = np.random.default_rng([how.seed, len(samples)])
    shape = (how.resamples, len(samples))
    tests, resamples = generator.integers(len(samples), size=shape), generator.integers(how.resamples, size=shape)
    return float(np.mean([sample.values.mean() for sample in samples])), within[tests, resamples].mean(axis=1)
