"""Learning to compare: classifiers that read two bases' indicators and say which is better (arXiv 2504.12491)."""

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

    # Library defaults, as published; the rest makes a fit the same on every machine and keeps it to one thread.
    same = {"random_state": 0, "deterministic": True, "force_row_wise": True}
    return LGBMClassifier(objective="binary", importance_type="gain", n_jobs=1, verbosity=-1, **same)


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=100)


def _mlp() -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(hidden_layer_sizes=(32, 32), max_iter=100, random_state=0)


MODELS: dict[str, Callable[[], Any]] = {"lightgbm": _lightgbm, "logistic": _logistic, "mlp": _mlp}


@dataclass(frozen=True)
class Even:
    """The classifier of training bases whose targets are all equal: it prefers none."""

    features: int

    def predict_proba(self, rows: Values) -> Values:
        """A half for either class, shape (rows, 2)."""
        return np.full((len(rows), 2), 0.5)

    @property
    def feature_importances_(self) -> Values:
        """No feature has a share in it, shape (features,)."""
        return np.zeros(self.features)


@dataclass(frozen=True)
class Comparer:
    """A fitted classifier with the columns that it reads, shape (bases, columns), scaled as for its training."""

    classifier: Any
    scaled: Values

    def preferences(self) -> Values:
        """Probability that the first of each pair is better, less a half: shape (pairs,)."""
        return self._forth - 0.5

    def symmetric_preferences(self) -> Values:
        """The same from both orders of a pair, (f(i, j) + 1 - f(j, i))/2 less a half: the order cannot matter."""
        first, second = first_second(len(self.scaled))
        return (self._forth - self._probability(second, first)) / 2

    @cached_property
    def _forth(self) -> Values:
        return self._probability(*first_second(len(self.scaled)))

    def importance(self) -> Values:
        """Share of each column in the gain of all splits of a LightGBM classifier, summed over its four features."""
        gain = self.classifier.feature_importances_.reshape(4, -1).sum(axis=0)
        return gain / max(gain.sum(), np.finfo(float).tiny)

    def _probability(self, first: Places, second: Places) -> Values:
        return self.classifier.predict_proba(features(self.scaled, first, second))[:, 1]


def features(columns: Values, first: Places, second: Places) -> Values:
    """Difference, product and both values of each column for pairs of bases: shape (pairs, 4 x columns)."""
    one, other = columns[first], columns[second]
    return np.hstack([one - other, one * other, one, other])


def fit(model: str, columns: Values, target: Values, train: Mask) -> Comparer:
    """A classifier of MODELS, fitted on all ordered pairs of the training bases; columns: z-scored over these.

    Its label is whether the first base has the higher target: of two equal ones neither has.
    """
    own = columns[train]
    spread = own.std(axis=0)
    scaled = (columns - own.mean(axis=0)) / np.where(spread > 0, spread, 1)
    places = np.flatnonzero(train)
    first, second = (places[side] for side in np.nonzero(~np.eye(len(places), dtype=bool)))
    better = target[first] > target[second]
    if not better.any():
        return Comparer(Even(4 * columns.shape[1]), scaled)
    classifier = MODELS[model]()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Stochastic Optimizer")  # 100 passes are what was published
        classifier.fit(features(scaled, first, second), better)
    return Comparer(classifier, scaled)
