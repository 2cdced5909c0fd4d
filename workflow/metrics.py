"""Metrics of a test's predictions. One entry of METRICS is all that a new metric takes.

A metric is either a mean of one value for each row (`PerRow`), which is kept with the row, or a statistic of all rows
together (`Overall`). Both are computed for many resamples at once from the rows' multiplicities. Predictions are frames
with the columns of `tables.PREDICTIONS` and the suite's `protocol`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rouge_score import rouge_scorer

from workflow import task
from workflow.statistics import Interval, Resampling
from workflow.task import KINDS

Values = NDArray[np.float64]

# The order in which the released code of arXiv 2408.06663 looks for label words: "no" before "yes".
PUBLISHED_SEARCH = ("contradiction", "neutral", "entailment", "no", "yes")


@dataclass(frozen=True)
class PerRow:
    """A mean over rows. methods: prediction methods it applies to; values: predictions -> one number a row."""

    methods: tuple[str, ...]
    values: Callable[[pd.DataFrame], Values]

    def estimates(self, rows: pd.DataFrame, weights: Values) -> Values:
        """Means for each row of weights, shape (resamples, n)."""
        return weights @ self.values(rows) / weights.sum(axis=1)


@dataclass(frozen=True)
class Overall:
    """A statistic of all rows. estimates: (predictions, weights of shape (resamples, n)) -> one number a resample."""

    methods: tuple[str, ...]
    estimates: Callable[[pd.DataFrame, Values], Values]


def predicted(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Index of the predicted choice in each row, -1 where generated text names none."""
    return np.array([_index(row) for row in rows.to_dict("records")], dtype=np.int64)


def _index(row: Mapping[str, Any]) -> int:
    if len(row["logprobs"]):
        return int(np.argmax(row["logprobs"]))
    found = named_label(row["output"], list(row["choices"]), row["protocol"])
    return list(row["choices"]).index(found) if found else -1


def named_label(text: str, labels: Sequence[str], protocol: str) -> str | None:
    """The label that a generated text names: the word it starts with (`sound`), or the first that occurs anywhere in it
    in the order PUBLISHED_SEARCH (`published`); None where there is none."""
    if protocol == "published":
        return next((word for word in PUBLISHED_SEARCH if word in labels and word in text), None)
    words = text.split()
    start = words[0].strip(".,;:!?\"'").casefold() if words else ""
    return next((label for label in labels if label.casefold() == start), None)


def gold(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Index of the right choice in each row."""
    return rows["gold"].to_numpy(dtype=np.int64)


def accuracy(rows: pd.DataFrame) -> Values:
    """1 where the prediction is the gold choice; choices compared by their whole log-probability."""
    return (predicted(rows) == gold(rows)).astype(float)


def accuracy_per_token(rows: pd.DataFrame) -> Values:
    """As accuracy, choices compared by log-probability divided by their tokens."""
    return _normalised(rows, rows["candidate_tokens"])


def accuracy_per_byte(rows: pd.DataFrame) -> Values:
    """As accuracy, choices compared by log-probability divided by their length in UTF-8 bytes."""
    return _normalised(rows, [[len(choice.encode()) for choice in choices] for choices in rows["choices"]])


def _normalised(rows: pd.DataFrame, lengths: Sequence[Sequence[int]]) -> Values:
    best = [np.argmax(np.divide(p, n)) for p, n in zip(rows["logprobs"], lengths, strict=True)]
    return (np.array(best) == gold(rows)).astype(float)


def chance(rows: pd.DataFrame) -> Values:
    """Probability that a uniform guess is right."""
    return np.array([1 / len(choices) for choices in rows["choices"]])


def rouge_l(rows: pd.DataFrame) -> Values:
    """ROUGE-L F-measure of the output against the reference (Lin 2004; rouge-score without stemmer)."""
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(rows["reference"], rows["output"], strict=True)
    return np.array([scorer.score(reference, output)["rougeL"].fmeasure for reference, output in pairs])


def majority(rows: pd.DataFrame, weights: Values) -> Values:
    """Accuracy of always giving the most frequent gold label."""
    classes = np.unique(gold(rows))
    shares = weights @ (gold(rows)[:, None] == classes[None, :]).astype(float)
    return shares.max(axis=1) / weights.sum(axis=1)


def macro_f1(rows: pd.DataFrame, weights: Values) -> Values:
    """F1 averaged over the classes that occur as gold or prediction (of the resample), 0 for one never right."""
    truth, guess = gold(rows)[:, None], predicted(rows)[:, None]
    classes = np.unique(np.concatenate([truth, guess]))
    classes = classes[classes >= 0][None, :]
    right = weights @ ((truth == classes) & (guess == classes)).astype(float)
    present = weights @ (truth == classes).astype(float) + weights @ (guess == classes).astype(float)
    f1 = np.divide(2 * right, present, out=np.zeros_like(right), where=present > 0)
    return f1.sum(axis=1) / (present > 0).sum(axis=1)


METRICS: dict[str, PerRow | Overall] = {
    "accuracy": PerRow(("label", "rank"), accuracy),
    "accuracy_per_token": PerRow(("rank",), accuracy_per_token),
    "accuracy_per_byte": PerRow(("rank",), accuracy_per_byte),
    "chance": PerRow(("label", "rank"), chance),
    "macro_f1": Overall(("label",), macro_f1),
    "majority": Overall(("label",), majority),
    "rouge_l": PerRow(("generate",), rouge_l),
}

# The one metric of a test that figures and analyses follow, by prediction method.
PRIMARY = {"label": "accuracy", "rank": "accuracy", "generate": "rouge_l"}


def applicable(method: str) -> list[str]:
    """Names of the metrics for a prediction method (`task.Kind.method`)."""
    return [name for name, metric in METRICS.items() if method in metric.methods]


def score(rows: pd.DataFrame, name: str, how: Resampling) -> Interval:
    """A metric over the rows of one test with its interval over resampled rows."""
    metric = METRICS[name]
    point = metric.estimates(rows, np.ones((1, len(rows))))[0]
    resampled = np.concatenate([metric.estimates(rows, weights) for weights in how.weights(len(rows))])
    low, high = how.bounds(resampled)
    return Interval(float(point), low, high, len(rows))


def scored(
    predictions: pd.DataFrame, protocol: str, how: Resampling
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All metrics of a cell: rows of `tables.SCORES`, and rows of `tables.ITEMS` for the metrics that are means.

    In the `published` protocol the value is the middle of the interval, as in the released code.
    """
    scores, items = [], []
    keys = ["test", "test_format", "shots"]
    for found, rows in predictions.assign(protocol=protocol).groupby(keys, sort=False):
        place = dict(zip(keys, found, strict=True))
        for name in applicable(KINDS[task.load(place["test"]).kind].method):
            interval = score(rows, name, how)
            value = (interval.low + interval.high) / 2 if protocol == "published" else interval.value
            scores.append({**place, "metric": name, **asdict(interval), "value": value})
            if isinstance(METRICS[name], PerRow):
                values = METRICS[name].values(rows)
                items += [
                    {**place, "metric": name, "id": id, "value": v} for id, v in zip(rows["id"], values, strict=True)
                ]
    return scores, items
