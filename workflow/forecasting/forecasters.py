"""Forecasters, which prefer one base to another without tuning: indicators, combinations, config fields, classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workflow.forecasting import classifiers
from workflow.forecasting.classifiers import MODELS, PairClassifier
from workflow.forecasting.cohorts import Cohort
from workflow.forecasting.pairs import accuracy, differences
from workflow.forecasting.splits import LEAST, Round

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

CHANCE, CONFIG, BOTH = "chance", "config", "config_and_indicators"
NAMES = {CHANCE, CONFIG, BOTH, *MODELS, *(f"{model}_symmetric" for model in MODELS)}
RANDOM = 1000  # orders drawn for the baseline of chance, half of them the reverse of the others


@dataclass(frozen=True)
class Forecast:
    """Preferences of one forecaster in a split, shape (rounds, pairs), 0 for pairs outside a round.

    kind: indicator, combination, field, config (all fields together), comparer (a classifier), both; source: the target that
    it was fitted on, None if it is not fitted.
    """

    forecaster: str
    kind: str
    source: str | None
    preferences: Values


def minmax(values: Values) -> Values:
    """Scale each column to 0 to 1; a constant column becomes 0."""
    spread = np.ptp(values, axis=0)
    return (values - values.min(axis=0)) / np.where(spread > 0, spread, 1)


def rank(values: Values) -> Values:
    """Return the rank of each value in its column, from 0 to 1; equal values get the mean of their ranks."""
    above = values[:, None] - values[None]
    return (1 + np.sign(above)).mean(axis=1) / 2


NORMALISERS = {"minmax": minmax, "rank": rank}


def unfitted(cohort: Cohort, combinations: Mapping[str, Mapping[str, float]], rounds: int) -> list[Forecast]:
    """Return each indicator, and each combination as a weighted sum of min-max values and of ranks over all bases."""
    scores = {("indicator", name): cohort.values([name])[:, 0] for name in cohort.indicators}
    for name, weights in combinations.items():
        for normaliser, normalise in NORMALISERS.items():
            columns = normalise(cohort.values(list(weights)))
            scores["combination", f"{normaliser}:{name}"] = columns @ np.array(list(weights.values()), dtype=float)
    return [
        Forecast(name, kind, None, np.tile(differences(values), (rounds, 1))) for (kind, name), values in scores.items()
    ]


def fitted(cohort: Cohort, source: str, rounds: Sequence[Round]) -> tuple[list[Forecast], dict[str, Values]]:
    """Return the forecasters fitted on a target (fields, classifiers), and the importance of LightGBM's columns.

    Classifiers are left out of a split with a fold of fewer than LEAST training bases. importance: by forecaster, shape
    (folds, indicators or fields and indicators), in the order of the table.
    """
    target = cohort.values([source])[:, 0]
    enough = all(fold.train.sum() >= LEAST for folds in rounds for fold in folds)
    by_forecaster: dict[tuple[str, str], Values] = {}
    importance: dict[str, list[Values]] = {}
    for number, folds in enumerate(rounds):
        for fold in folds:
            models = compare(cohort, target, fold.train) if enough else {}
            preferences_of = fields(cohort, target, fold.train) | _told(models)
            for key, preferences in preferences_of.items():
                whole = by_forecaster.setdefault(key, np.zeros((len(rounds), len(fold.pairs))))
                whole[number, fold.pairs] = preferences[fold.pairs]
            for name, shares in _weighed(cohort, models).items() if enough else ():
                importance.setdefault(name, []).append(shares)
    forecasts = [Forecast(name, kind, source, values) for (kind, name), values in by_forecaster.items()]
    return forecasts, {name: np.array(values) for name, values in importance.items()}


def fields(cohort: Cohort, target: Values, train: Mask) -> dict[tuple[str, str], Values]:
    """Return preferences by each config field, learned on training bases: the better direction of a number, a level's mean."""
    preferences = {}
    for name in cohort.fields:
        column = cohort.rows[name].to_numpy()
        score = _directed(column, target, train) if cohort.numeric(name) else _level_means(column, target, train)
        preferences["field", name] = differences(score)
    return preferences


def _directed(column: Values, target: Values, train: Mask) -> Values:
    """Return a numeric field, negated if lower values are better in most training pairs; zeros without a pair."""
    difference = differences(target[train])
    if not difference.any():
        return np.zeros(len(column))
    rising = accuracy(differences(column[train].astype(float)), difference)
    return column.astype(float) if rising >= 0.5 else -column.astype(float)


def _level_means(column: NDArray, target: Values, train: Mask) -> Values:
    """Return for each base the mean target of its level's training bases; of all of them if it has none, 0 without any."""
    means = {level: target[train & (column == level)].mean() for level in np.unique(column[train])}
    whole = target[train].mean() if train.any() else 0.0
    return np.array([means.get(level, whole) for level in column])


def compare(cohort: Cohort, target: Values, train: Mask) -> dict[str, PairClassifier]:
    """Fit every model on the indicators, and LightGBM on config fields without and with indicators."""
    indicators, config = cohort.values(cohort.indicators), design(cohort)[0]
    models = {name: classifiers.fit(name, indicators, target, train) for name in MODELS}
    models[CONFIG] = classifiers.fit("lightgbm", config, target, train)
    models[BOTH] = classifiers.fit("lightgbm", np.hstack([config, indicators]), target, train)
    return models


def design(cohort: Cohort) -> tuple[Values, list[str]]:
    """Return config fields as columns, and the field of each: numbers unchanged, text as one column for each level."""
    columns, names = [], []
    for name in cohort.fields:
        column = cohort.rows[name].to_numpy()
        field_columns = (
            [column.astype(float)] if cohort.numeric(name) else [column == level for level in cohort.levels(name)]
        )
        columns += field_columns
        names += [name] * len(field_columns)
    return np.column_stack(columns).astype(float), names


def _told(models: Mapping[str, PairClassifier]) -> dict[tuple[str, str], Values]:
    """Return the classifiers' preferences: for indicators the published and the symmetric form, else only the symmetric."""
    preferences = {}
    for name, model in models.items():
        if name in MODELS:
            preferences["comparer", name] = model.preferences()
            preferences["comparer", f"{name}_symmetric"] = model.symmetric_preferences()
        else:
            preferences["config" if name == CONFIG else "both", name] = model.symmetric_preferences()
    return preferences


def _weighed(cohort: Cohort, models: Mapping[str, PairClassifier]) -> dict[str, Values]:
    """Return the importance of indicators in `lightgbm`, and of fields and indicators in `config_and_indicators`."""
    owners = [*design(cohort)[1], *cohort.indicators]
    shares = models[BOTH].importance()
    both = [shares[[owner == name for owner in owners]].sum() for name in (*cohort.fields, *cohort.indicators)]
    return {"lightgbm": models["lightgbm"].importance(), BOTH: np.array(both)}


def chance(bases: int, seed: int) -> Values:
    """Return preferences of random orders of the bases, each with its reverse: shape (RANDOM, pairs)."""
    generator = np.random.default_rng(seed)
    orders = differences(generator.permuted(np.tile(np.arange(bases, dtype=float), (RANDOM // 2, 1)), axis=1))
    return np.concatenate([orders, -orders])
