"""Classifiers that predict from two bases' indicators which base is better (arXiv 2504.12491)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.forecasting.pairs import first_second

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]


def _lightgbm() -> Any:
    from lightgbm import LGBMClassifier

    # Library defaults, as published; the other arguments make a fit the same on every machine and use one thread.
    deterministic: dict[str, Any] = {"random_state": 0, "deterministic": True, "force_row_wise": True}
    return LGBMClassifier(objective="binary", importance_type="gain", n_jobs=1, verbosity=-1, **deterministic)


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=100)


def _mlp() -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(hidden_layer_sizes=(32, 32), max_iter=100, random_state=0)


MODELS: dict[str, Callable[[], Any]] = {"lightgbm": _lightgbm, "logistic": _logistic, "mlp": _mlp}


@dataclass(frozen=True)
class EqualClassifier:
    """The classifier for training bases with equal targets: it has no preference."""

    features: int

    def predict_proba(self, rows: Values) -> Values:
        """Return probability 0.5 for both classes, shape (rows, 2)."""
        return np.full((len(rows), 2), 0.5)

    @property
    def feature_importances_(self) -> Values:
        """Zero for each feature, shape (features,)."""
        return np.zeros(self.features)


@dataclass(frozen=True)
class PairClassifier:
    """A fitted classifier with its input columns, shape (bases, columns), scaled as in training."""

    classifier: Any
    scaled: Values

    def preferences(self) -> Values:
        """Return the probability that the first of each pair is better, minus 0.5: shape (pairs,)."""
        return self._forth - 0.5

    def symmetric_preferences(self) -> Values:
        """Return the same averaged over both orders of a pair, (f(i, j) + 1 - f(j, i))/2 - 0.5."""
        first, second = first_second(len(self.scaled))
        return (self._forth - self._probability(second, first)) / 2

    @cached_property
    def _forth(self) -> Values:
        return self._probability(*first_second(len(self.scaled)))

    def importance(self) -> Values:
        """Return each column's share of the gain of all splits of a LightGBM classifier, summed over its four features."""
        gain = self.classifier.feature_importances_.reshape(4, -1).sum(axis=0)
        return gain / max(gain.sum(), np.finfo(float).tiny)

    def _probability(self, first: Places, second: Places) -> Values:
        return self.classifier.predict_proba(features(self.scaled, first, second))[:, 1]


def features(columns: Values, first: Places, second: Places) -> Values:
    """Return difference, product and both values of each column for pairs of bases: shape (pairs, 4 x columns)."""
    one, other = columns[first], columns[second]
    return np.hstack([one - other, one * other, one, other])


def fit(model: str, columns: Values, target: Values, train: Mask) -> PairClassifier:
    """Fit a classifier of MODELS on all ordered pairs of the training bases, with columns z-scored over these bases.

    The label is whether the first base has the higher target (false for equal targets).
    """
    training = columns[train]
    spread = training.std(axis=0)
    scaled = (columns - training.mean(axis=0)) / np.where(spread > 0, spread, 1)
    indices = np.flatnonzero(train)
    first, second = (indices[side] for side in np.nonzero(~np.eye(len(indices), dtype=bool)))
    better = target[first] > target[second]
    if not better.any():
        return PairClassifier(EqualClassifier(4 * columns.shape[1]), scaled)
    classifier = MODELS[model]()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Stochastic Optimizer")  # 100 passes are what was published
        classifier.fit(features(scaled, first, second), better)
    return PairClassifier(classifier, scaled)
