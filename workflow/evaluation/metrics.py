"""Metrics of a test's predictions. A new metric needs only an entry in METRICS.

A metric is either a mean of one value per row (`PerRow`), which is stored with the row, or a statistic of all rows
together (`Overall`). Both have closed-form intervals with correct coverage near 0 and 1 too (`statistics.Margins`); for the
`published` protocol both are computed for many resamples at once from the rows' multiplicities. Predictions are frames with the
columns of `tables.PREDICTIONS` and the suite's `protocol`. Methods are what `method` gives.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from workflow import task
from workflow.errors import StudyError, first_line
from workflow.evaluation import metric_names
from workflow.evaluation.metric_names import PRIMARY
from workflow.settings import Suite
from workflow.statistics import Interval, Margins, Resampling, bounded, closed, normal, share
from workflow.task import KINDS, Example, Rows, Task

Values = NDArray[np.float64]

# Prediction of labels (a suite's key `labels`) -> method of a label task; all other tasks have the method of their kind.
LABEL_METHODS = {"score": "label", "generate": "label_generated", "constrained": "label_constrained"}
LABEL = tuple(LABEL_METHODS.values())

# The order in which the released code of arXiv 2408.06663 looks for label words: "no" before "yes".
PUBLISHED_SEARCH = ("contradiction", "neutral", "entailment", "no", "yes")


def method(read: Task, labels: str) -> str:
    """Return the prediction method of a task in a suite with this key `labels`: a value of LABEL_METHODS or the kind's."""
    of_kind = str(KINDS[read.kind].method)  # kinds without a method are never tests
    return LABEL_METHODS[labels] if of_kind == "label" else of_kind


@dataclass(frozen=True)
class PerRow:
    """A mean over rows. methods: those it applies to; values: predictions -> one number per row; column: the one it needs."""

    methods: tuple[str, ...]
    values: Callable[[pd.DataFrame], Values]
    column: str = "output"

    def estimates(self, rows: pd.DataFrame, weights: Values) -> Values:
        """Return the mean for each row of weights, shape (resamples, n)."""
        return weights @ self.values(rows) / weights.sum(axis=1)

    def interval(self, rows: pd.DataFrame, level: float) -> Interval:
        """Return the mean with its interval over rows: for values between 0 and 1 in closed form, for others Student's."""
        return mean_of(self.values(rows), level)


@dataclass(frozen=True)
class Overall:
    """A statistic of all rows. estimates: (predictions, weights of shape (resamples, n)) -> one number per resample, NaN if
    the statistic applies to none of its rows; uncertainty: predictions -> standard error and margins of the statistic;
    methods, column: as in PerRow."""

    methods: tuple[str, ...]
    estimates: Callable[[pd.DataFrame, Values], Values]
    uncertainty: Callable[[pd.DataFrame], tuple[float, Margins]]
    column: str = "output"

    def interval(self, rows: pd.DataFrame, level: float) -> Interval | None:
        """Return the statistic with its interval over rows; None if it applies to none of them."""
        value = float(self.estimates(rows, np.ones((1, len(rows))))[0])
        return None if np.isnan(value) else closed(value, *self.uncertainty(rows), len(rows), level)


def mean_of(values: Values, level: float) -> Interval:
    """Return the mean of values, shape (n,), with its interval (`bounded` if all lie between 0 and 1)."""
    value, n = float(values.mean()), len(values)
    error = float(values.std()) / n**0.5
    inside = values.min() >= 0 and values.max() <= 1
    return closed(value, error, bounded(values) if inside else normal(error, max(1, n - 1)), n, level)


def predicted(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Return the index of the predicted choice in each row, -1 if generated text names none."""
    return np.array([_index(row) for row in rows.to_dict("records")], dtype=np.int64)


def _index(row: Mapping[str, Any]) -> int:
    if len(row["logprobs"]):
        return int(np.argmax(row["logprobs"]))
    name = held_label if row.get("free_output") is not None else named_label
    label = name(row["output"], list(row["choices"]), row["protocol"])
    return list(row["choices"]).index(label) if label else -1


def named_label(text: str, labels: Sequence[str], protocol: str) -> str | None:
    """Return the label that a generated text names: its first word (`sound`), or the first label that occurs anywhere in it,
    in the order of PUBLISHED_SEARCH (`published`); None if there is none."""
    if protocol == "published":
        return next((word for word in PUBLISHED_SEARCH if word in labels and word in text), None)
    words = text.split()
    start = words[0].strip(".,;:!?\"'").casefold() if words else ""
    return next((label for label in labels if label.casefold() == start), None)


def held_label(text: str, labels: Sequence[str], protocol: str) -> str | None:
    """Return the label in a text generated under the constraint: the first one in it (`sound`), else as `named_label`."""
    if protocol == "published":
        return named_label(text, labels, protocol)
    places = {label: text.find(label) for label in labels if label in text}
    return min(places, key=places.__getitem__, default=None)


def gold(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Return the index of the right choice in each row. Errors: StudyError for a row without one, which a cast would hide."""
    if rows["gold"].isna().any():
        raise StudyError("a row has no gold choice; expected one for each")
    return rows["gold"].to_numpy(dtype=np.int64)


def accuracy(rows: pd.DataFrame) -> Values:
    """Return 1 where the prediction is the gold choice, else 0; choices are compared by their summed log-probability."""
    return (predicted(rows) == gold(rows)).astype(float)


def accuracy_per_token(rows: pd.DataFrame) -> Values:
    """Return accuracy with choices compared by log-probability per token."""
    return _normalised(rows, rows["candidate_tokens"])


def accuracy_per_byte(rows: pd.DataFrame) -> Values:
    """Return accuracy with choices compared by log-probability per UTF-8 byte."""
    return _normalised(rows, [[len(choice.encode()) for choice in choices] for choices in rows["choices"]])


def _normalised(rows: pd.DataFrame, lengths: Sequence[Sequence[int]]) -> Values:
    indices = [np.argmax(np.divide(p, n)) for p, n in zip(rows["logprobs"], lengths, strict=True)]
    return (np.array(indices) == gold(rows)).astype(float)


def accuracy_calibrated(rows: pd.DataFrame) -> Values:
    """Return accuracy with each label's prior subtracted (contextual calibration, Zhao et al. 2021, section 5)."""
    best = [np.argmax(np.subtract(p, prior)) for p, prior in zip(rows["logprobs"], rows["priors"], strict=True)]
    return (np.array(best) == gold(rows)).astype(float)


def forced(rows: pd.DataFrame) -> Values:
    """Return 1 where the free greedy text names no label, so that only the constraint forced one, else 0."""
    named = (named_label(row.free_output, list(row.choices), row.protocol) for row in rows.itertuples())
    return np.array([label is None for label in named], dtype=float)


def chance(rows: pd.DataFrame) -> Values:
    """Return the probability that a uniform guess is right."""
    return np.array([1 / len(choices) for choices in rows["choices"]])


def rouge(kind: str) -> Callable[[pd.DataFrame], Values]:
    """Return a function for a ROUGE F-measure of outputs and references (Lin 2004, sections 2, 3), by the rouge-score package.

    kind: `rouge1`, `rouge2` (words and pairs of words in common) or `rougeL` (longest common subsequence). Words are runs of
    ASCII letters and digits in lower case; if the column `stemmer` is set, their stems by Porter's stemmer.
    """

    def values(rows: pd.DataFrame) -> Values:
        from rouge_score.rouge_scorer import RougeScorer  # takes a second, which jobs without such tests need not spend

        stemmed = "stemmer" in rows and bool(rows["stemmer"].any())
        scorer = RougeScorer([kind], use_stemmer=stemmed)
        pairs = zip(rows["reference"], rows["output"], strict=True)
        return np.array([scorer.score(reference, output)[kind].fmeasure for reference, output in pairs])

    return values


def plain(text: str) -> str:
    """Normalise an answer as SQuAD does: no case, punctuation, articles or extra white space (Rajpurkar et al. 2016)."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(rows: pd.DataFrame) -> Values:
    """Return 1 where the first line of the output equals an accepted answer, compared as in SQuAD, else 0."""
    return np.array([float(plain(line) in {plain(one) for one in accepted}) for line, accepted in lines(rows)])


def answer_f1(rows: pd.DataFrame) -> Values:
    """Return the word F1 of the first line of the output and the best accepted answer (SQuAD)."""
    return np.array([max(_shared(plain(line), plain(one)) for one in accepted) for line, accepted in lines(rows)])


def lines(rows: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return the first line of each output, and the accepted answers."""
    firsts = [(text.strip().splitlines() or [""])[0] for text in rows["output"]]
    return list(zip(firsts, (list(accepted) for accepted in rows["choices"]), strict=True))


def _shared(text: str, answer: str) -> float:
    """Return the F1 of words: 1 if both texts have none, 0 if one has none."""
    words, expected = Counter(text.split()), Counter(answer.split())
    if not words or not expected:
        return float(words == expected)
    return 2 * (words & expected).total() / (words.total() + expected.total())


def answer_log_likelihood(rows: pd.DataFrame) -> Values:
    """Return the log-probability of the reference answer after the prompt, in nats per token; higher is better."""
    return np.array([p[0] / n[0] for p, n in zip(rows["logprobs"], rows["candidate_tokens"], strict=True)])


def majority(rows: pd.DataFrame, weights: Values) -> Values:
    """Return the accuracy of always predicting the most frequent gold label."""
    classes = np.unique(gold(rows))
    shares = weights @ (gold(rows)[:, None] == classes[None, :]).astype(float)
    return shares.max(axis=1) / weights.sum(axis=1)


def most_predicted(rows: pd.DataFrame, weights: Values) -> Values:
    """Return the share of the most frequent prediction, 1 if constant; text that names no label is a separate class."""
    guess = predicted(rows)[:, None]
    shares = weights @ (guess == np.unique(guess)[None, :]).astype(float)
    return shares.max(axis=1) / weights.sum(axis=1)


def accuracy_forced(rows: pd.DataFrame, weights: Values) -> Values:
    """Return the accuracy among rows whose label was forced; NaN for a resample without such rows."""
    is_forced = forced(rows)
    right, count = weights @ (is_forced * accuracy(rows)), weights @ is_forced
    return np.divide(right, count, out=np.full_like(right, np.nan), where=count > 0)


def macro_f1(rows: pd.DataFrame, weights: Values) -> Values:
    """Return F1 averaged over the classes that occur as gold or prediction in the resample, 0 for a class never right."""
    truth, guess = gold(rows)[:, None], predicted(rows)[:, None]
    classes = np.unique(np.concatenate([truth, guess]))
    classes = classes[classes >= 0][None, :]
    right = weights @ ((truth == classes) & (guess == classes)).astype(float)
    present = weights @ (truth == classes).astype(float) + weights @ (guess == classes).astype(float)
    f1 = np.divide(2 * right, present, out=np.zeros_like(right), where=present > 0)
    return f1.sum(axis=1) / (present > 0).sum(axis=1)


def _of_share(rows: Values) -> tuple[float, Margins]:
    """Return standard error and margins of a share of rows, given as 0 and 1."""
    value = float(rows.mean())
    return (value * (1 - value) / len(rows)) ** 0.5, share(value, len(rows))


def _of_most(classes: NDArray[np.int64]) -> tuple[float, Margins]:
    """Return standard error and margins of the share of the most frequent class."""
    values, counts = np.unique(classes, return_counts=True)
    return _of_share((classes == values[counts.argmax()]).astype(float))


def macro_f1_uncertainty(rows: pd.DataFrame) -> tuple[float, Margins]:
    """Return standard error and margins of `macro_f1`.

    F1 of a class is 2 J / (1 + J) of the share J of right rows among those that it is the gold or the prediction of, so the
    margins of that share are those of F1. Margins of the mean over classes follow from the correlations of the classes' F1,
    by each row's influence on them (as in `statistics.apart`); a class without spread counts as perfectly correlated.
    """
    truth, guess = gold(rows)[:, None], predicted(rows)[:, None]
    classes = np.unique(np.concatenate([truth, guess]))
    classes = classes[classes >= 0][None, :]
    right, present = (truth == classes) & (guess == classes), (truth == classes) * 1.0 + (guess == classes)
    f1 = 2 * right.sum(axis=0) / present.sum(axis=0)
    influence = (2 * right - f1 * present) / present.mean(axis=0)
    among = (present > 0).sum(axis=0)
    shares = [(jaccard, share(jaccard, n)) for jaccard, n in zip(right.sum(axis=0) / among, among, strict=True)]
    correlations = _correlations(influence)

    def margins(level: float) -> tuple[float, float]:
        ends = [(jaccard, *own_margins(level)) for jaccard, own_margins in shares]
        below = np.array([_f1(jaccard) - _f1(jaccard - low) for jaccard, low, _ in ends])
        above = np.array([_f1(jaccard + high) - _f1(jaccard) for jaccard, _, high in ends])
        return tuple(max(0.0, float(side @ correlations @ side)) ** 0.5 / len(ends) for side in (below, above))

    return float(influence.mean(axis=1).std()) / len(rows) ** 0.5, margins


def _f1(share: float) -> float:
    """Return the F1 of a class from its Jaccard index: the share of right rows among those with it as gold or prediction."""
    return 2 * share / (1 + share)


def _correlations(columns: Values) -> Values:
    """Return correlations of columns, shape (n, columns); 1 with a constant column."""
    spread = columns.std(axis=0)
    correlations = np.ones((columns.shape[1], columns.shape[1]))
    moving = np.flatnonzero(spread > 1e-12)
    if len(moving) > 1:
        correlations[np.ix_(moving, moving)] = np.corrcoef(columns[:, moving].T)
    return correlations


METRICS: dict[str, PerRow | Overall] = {
    "accuracy": PerRow((*LABEL, "rank"), accuracy),
    "accuracy_calibrated": PerRow(("label",), accuracy_calibrated, column="priors"),
    "accuracy_forced": Overall(
        ("label_constrained",), accuracy_forced, lambda rows: _of_share(accuracy(rows)[forced(rows) == 1])
    ),
    "accuracy_per_token": PerRow(("rank",), accuracy_per_token),
    "accuracy_per_byte": PerRow(("rank",), accuracy_per_byte),
    "answer_f1": PerRow(("answer",), answer_f1),
    "answer_log_likelihood": PerRow(("answer",), answer_log_likelihood, column="logprobs"),
    "chance": PerRow((*LABEL, "rank"), chance),
    "exact_match": PerRow(("answer",), exact_match),
    "forced": PerRow(("label_constrained",), forced),
    "macro_f1": Overall(LABEL, macro_f1, macro_f1_uncertainty),
    "majority": Overall(LABEL, majority, lambda rows: _of_most(gold(rows))),
    "most_predicted": Overall(LABEL, most_predicted, lambda rows: _of_most(predicted(rows))),
    "rouge_1": PerRow(("generate",), rouge("rouge1")),
    "rouge_2": PerRow(("generate",), rouge("rouge2")),
    "rouge_l": PerRow(("generate",), rouge("rougeL")),
}


def check_scores(table: pa.Table, keys: list[str]) -> None:
    """Check gathered scores, or their rows: each once, each value finite or null, each share from 0 to 1.

    keys: the columns that identify a row. Errors: StudyError naming the first row that fails.
    """
    scores = table.to_pandas()
    value, share = scores["value"].astype(float), scores["metric"].map(metric_names.is_share)
    null = table["value"].is_null().to_numpy()
    for wrong, what in (
        (scores.duplicated(keys), "occurs twice"),
        (~null & ~np.isfinite(value), "is {value}, expected a finite number, or null where there is none"),
        (~null & share & ~value.between(0, 1), "is {value}, expected a share from 0 to 1"),
    ):
        if wrong.any():
            row = scores[wrong].iloc[0]
            location = " ".join(f"{key}={row[key]}" for key in keys)
            raise StudyError(
                f"{location}: {what.format(value=row['value'])}; delete that part of results/ and run again"
            )


def applicable(method: str, columns: Collection[str]) -> list[str]:
    """Return the names of the metrics for a method whose columns exist; predictions of older versions may lack some."""
    return [name for name, metric in METRICS.items() if method in metric.methods and metric.column in columns]


def score(rows: pd.DataFrame, name: str, resampling: Resampling) -> Interval | None:
    """Return a metric over the rows of one test with its interval; None if it applies to none of them."""
    return METRICS[name].interval(rows, resampling.level)


def published_value(rows: pd.DataFrame, name: str, resampling: Resampling) -> float:
    """Return the midpoint of the percentile bootstrap interval, which the released code of arXiv 2408.06663 reports as value.

    Resamples for which the metric has no value are left out.
    """
    resampled = np.concatenate([METRICS[name].estimates(rows, weights) for weights in resampling.weights(len(rows))])
    return sum(resampling.bounds(resampled[~np.isnan(resampled)])) / 2


def scored(
    predictions: pd.DataFrame, suite: Suite, resampling: Resampling, stemmer: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return all metrics of a cell: rows of `tables.SCORES`, and rows of `tables.ITEMS` for metrics that are means.

    suite: the settings of the predictions; stemmer: whether ROUGE compares word stems. In the `published` protocol the value
    is that of `published_value`. A metric without a value has a row of nulls.
    """
    scores, items = [], []
    keys = ["test", "test_format", "shots"]
    for group, rows in predictions.assign(protocol=suite["protocol"], stemmer=stemmer).groupby(keys, sort=False):
        where = dict(zip(keys, group, strict=True))
        main = PRIMARY[str(task.method(where["test"]))]
        for name in applicable(method(task.load(where["test"]), suite["labels"]), rows):
            metric = METRICS[name]
            values = metric.values(rows) if isinstance(metric, PerRow) else None
            estimate = metric.interval(rows, resampling.level) if values is None else mean_of(values, resampling.level)
            row: dict[str, Any] = {"value": None, "error": None, "low": None, "high": None, "n": len(rows)}
            row |= asdict(estimate) if estimate else {}
            if estimate and suite["protocol"] == "published":
                row["value"] = published_value(rows, name, resampling)
            facts = {"metric": name, "primary": name == main, "better": metric_names.better(name)}
            scores.append({**where, **facts, **row})
            if values is not None:
                items += [
                    {**where, "metric": name, "id": id, "value": v} for id, v in zip(rows["id"], values, strict=True)
                ]
    return scores, items


TRIED = Resampling(resamples=100, level=0.95, seed=0)


def check(suite: Suite, tests: Mapping[str, tuple[Task, Rows, Rows]]) -> None:
    """Score invented predictions for two rows of each test, so that a test that cannot be scored fails before prediction.

    suite: its settings; tests: name -> (task, training rows, test rows). ROUGE accepts any text, so its tests are left out.
    Errors: StudyError naming the test.
    """
    from workflow.storage import tables

    for name, (read, _, test) in tests.items():
        if KINDS[read.kind].method == "generate":
            continue
        try:
            made_up = [_made_up(name, read, suite, *row) for row in test[:2]]
            scored(tables.frame(pa.Table.from_pylist(made_up, schema=tables.PREDICTIONS)), suite, TRIED)
        except Exception as error:  # of any kind, since it would otherwise occur after hours of prediction
            raise StudyError(f"test {name!r}: cannot be scored: {type(error).__name__}: {first_line(error)}") from error


def _made_up(name: str, read: Task, suite: Suite, id: str, example: Example) -> dict[str, Any]:
    """Return an invented prediction for a row, in the columns of `tables.PREDICTIONS` that scores need."""
    way = method(read, suite["labels"])
    compared = len(example.choices) if way in ("label", "rank") else int(way == "answer")
    return {
        "test": name,
        "test_format": suite["formats"][0],
        "shots": suite["shots"][0],
        "id": id,
        "output": example.answer,
        "free_output": example.answer if way == "label_constrained" else None,
        "reference": example.answer,
        "choices": list(example.choices),
        "gold": example.gold,
        "logprobs": [-1.0] * compared,
        "candidate_tokens": [1] * compared,
        "priors": [-1.0] * (compared if way == "label" else 0),
    }
