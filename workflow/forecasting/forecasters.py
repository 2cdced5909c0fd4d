"""What prefers one base to another without tuning either: indicators, their means, config fields, learned comparers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workflow.forecasting import classifiers
from workflow.forecasting.classifiers import MODELS, Comparer
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

    kind: indicator, combination, field, config (all fields together), comparer, both; source: the target that it was
    fitted on, None where nothing was fitted.
    """

    forecaster: str
    kind: str
    source: str | None
    preferences: Values


def minmax(values: Values) -> Values:
    """Values of each column between 0 and 1; a column that is always the same becomes 0."""
    spread = np.ptp(values, axis=0)
    return (values - values.min(axis=0)) / np.where(spread > 0, spread, 1)


def rank(values: Values) -> Values:
    """Rank of each value in its column, from 0 to 1; equal values share the mean of their ranks."""
    above = values[:, None] - values[None]
    return (1 + np.sign(above)).mean(axis=1) / 2


NORMALISERS = {"minmax": minmax, "rank": rank}


def unfitted(cohort: Cohort, combinations: Mapping[str, Mapping[str, float]], rounds: int) -> list[Forecast]:
    """Each indicator alone, and each combination as a weighted mean of min-max values and of ranks over all bases."""
    scores = {("indicator", name): cohort.values([name])[:, 0] for name in cohort.indicators}
    for name, weights in combinations.items():
        for normaliser, normalise in NORMALISERS.items():
            columns = normalise(cohort.values(list(weights)))
            scores["combination", f"{normaliser}:{name}"] = columns @ np.array(list(weights.values()), dtype=float)
    return [Forecast(name, kind, None, np.tile(differences(own), (rounds, 1))) for (kind, name), own in scores.items()]


def fitted(cohort: Cohort, source: str, rounds: Sequence[Round]) -> tuple[list[Forecast], dict[str, Values]]:
    """What is fitted on a target: fields, comparers, comparers of fields; and the importance of the latters' columns.

    Comparers are left out of a split some of whose folds have fewer than LEAST bases to learn from. The importance is that
    of LightGBM's columns in each fold, by forecaster: shape (folds, indicators or fields and indicators), in the order of
    the table.
    """
    target = cohort.values([source])[:, 0]
    enough = all(fold.train.sum() >= LEAST for folds in rounds for fold in folds)
    found: dict[tuple[str, str], Values] = {}
    importance: dict[str, list[Values]] = {}
    for number, folds in enumerate(rounds):
        for fold in folds:
            models = compare(cohort, target, fold.train) if enough else {}
            told = fields(cohort, target, fold.train) | _told(models)
            for key, preferences in told.items():
                whole = found.setdefault(key, np.zeros((len(rounds), len(fold.pairs))))
                whole[number, fold.pairs] = preferences[fold.pairs]
            for name, shares in _weighed(cohort, models).items() if enough else ():
                importance.setdefault(name, []).append(shares)
    forecasts = [Forecast(name, kind, source, own) for (kind, name), own in found.items()]
    return forecasts, {name: np.array(own) for name, own in importance.items()}


def fields(cohort: Cohort, target: Values, train: Mask) -> dict[tuple[str, str], Values]:
    """Preferences by each config field alone, from training bases: a number's better direction, a level's mean."""
    found = {}
    for name in cohort.fields:
        column = cohort.rows[name].to_numpy()
        score = _directed(column, target, train) if cohort.numeric(name) else _level_means(column, target, train)
        found["field", name] = differences(score)
    return found


def _directed(column: Values, target: Values, train: Mask) -> Values:
    """A numeric field, reversed where the lower value is the better one in most training pairs; all equal without a pair."""
    difference = differences(target[train])
    if not difference.any():
        return np.zeros(len(column))
    rising = accuracy(differences(column[train].astype(float)), difference)
    return column.astype(float) if rising >= 0.5 else -column.astype(float)


def _level_means(column: NDArray, target: Values, train: Mask) -> Values:
    """The mean target of the training bases of each level; of all of them where a level has none, 0 without any."""
    means = {level: target[train & (column == level)].mean() for level in np.unique(column[train])}
    whole = target[train].mean() if train.any() else 0.0
    return np.array([means.get(level, whole) for level in column])


def compare(cohort: Cohort, target: Values, train: Mask) -> dict[str, Comparer]:
    """Every model on the indicators, and LightGBM on config fields without and with them."""
    indicators, config = cohort.values(cohort.indicators), design(cohort)[0]
    models = {name: classifiers.fit(name, indicators, target, train) for name in MODELS}
    models[CONFIG] = classifiers.fit("lightgbm", config, target, train)
    models[BOTH] = classifiers.fit("lightgbm", np.hstack([config, indicators]), target, train)
    return models


def design(cohort: Cohort) -> tuple[Values, list[str]]:
    """Config fields as columns, and the field behind each: a number as it is, text as one column for each level."""
    columns, names = [], []
    for name in cohort.fields:
        column = cohort.rows[name].to_numpy()
        own = [column.astype(float)] if cohort.numeric(name) else [column == level for level in cohort.levels(name)]
        columns += own
        names += [name] * len(own)
    return np.column_stack(columns).astype(float), names


def _told(models: Mapping[str, Comparer]) -> dict[tuple[str, str], Values]:
    """Preferences of comparers: of indicators in the published form and the symmetric one, else in the latter alone."""
    found = {}
    for name, model in models.items():
        if name in MODELS:
            found["comparer", name] = model.preferences()
            found["comparer", f"{name}_symmetric"] = model.symmetric_preferences()
        else:
            found["config" if name == CONFIG else "both", name] = model.symmetric_preferences()
    return found


def _weighed(cohort: Cohort, models: Mapping[str, Comparer]) -> dict[str, Values]:
    """Importance of indicators in `lightgbm`, of fields and indicators in `config_and_indicators`."""
    owners = [*design(cohort)[1], *cohort.indicators]
    shares = models[BOTH].importance()
    both = [shares[[owner == name for owner in owners]].sum() for name in (*cohort.fields, *cohort.indicators)]
    return {"lightgbm": models["lightgbm"].importance(), BOTH: np.array(both)}


def chance(bases: int, seed: int) -> Values:
    """Preferences of random orders of the bases, each with its reverse: shape (RANDOM, pairs)."""
    generator = np.random.default_rng(seed)
    orders = differences(generator.permuted(np.tile(np.arange(bases, dtype=float), (RANDOM // 2, 1)), axis=1))
    return np.concatenate([orders, -orders])
