"""Metrics of a test's predictions. One entry of METRICS is all that a new metric takes.

A metric is either a mean of one value for each row (`PerRow`), which is kept with the row, or a statistic of all rows
together (`Overall`). Both have intervals in closed form that cover near 0 and 1 as well (`statistics.Margins`); for the
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
from workflow.statistics import Interval, Margins, Resampling, bounded, closed, normal, share
from workflow.task import KINDS, Example, Rows, Task

Values = NDArray[np.float64]

# How labels are predicted (a suite's key `labels`) -> the method of a label task; all others have their kind's own.
LABEL_METHODS = {"score": "label", "generate": "label_generated", "constrained": "label_constrained"}
LABEL = tuple(LABEL_METHODS.values())

# The order in which the released code of arXiv 2408.06663 looks for label words: "no" before "yes".
PUBLISHED_SEARCH = ("contradiction", "neutral", "entailment", "no", "yes")


def method(read: Task, labels: str) -> str:
    """How a task is predicted in a suite whose labels are predicted so: a value of LABEL_METHODS, `rank` or `generate`."""
    own = KINDS[read.kind].method
    return LABEL_METHODS[labels] if own == "label" else own


@dataclass(frozen=True)
class PerRow:
    """A mean over rows. methods: those it applies to; values: predictions -> one number a row; column: what it reads."""

    methods: tuple[str, ...]
    values: Callable[[pd.DataFrame], Values]
    column: str = "output"

    def estimates(self, rows: pd.DataFrame, weights: Values) -> Values:
        """Means for each row of weights, shape (resamples, n)."""
        return weights @ self.values(rows) / weights.sum(axis=1)

    def interval(self, rows: pd.DataFrame, level: float) -> Interval:
        """The mean with its interval over rows: of values between 0 and 1 in closed form, of others Student's."""
        return mean_of(self.values(rows), level)


@dataclass(frozen=True)
class Overall:
    """A statistic of all rows. estimates: (predictions, weights of shape (resamples, n)) -> one number a resample, NaN
    where the resample has no row that it is about; uncertainty: predictions -> standard error and margins of the statistic;
    methods, column: as of PerRow."""

    methods: tuple[str, ...]
    estimates: Callable[[pd.DataFrame, Values], Values]
    uncertainty: Callable[[pd.DataFrame], tuple[float, Margins]]
    column: str = "output"

    def interval(self, rows: pd.DataFrame, level: float) -> Interval | None:
        """The statistic with its interval over rows; None where it is about none of them."""
        value = float(self.estimates(rows, np.ones((1, len(rows))))[0])
        return None if np.isnan(value) else closed(value, *self.uncertainty(rows), len(rows), level)


def mean_of(values: Values, level: float) -> Interval:
    """The mean of values, shape (n,), with its interval (`bounded` where all lie between 0 and 1)."""
    value, n = float(values.mean()), len(values)
    error = float(values.std()) / n**0.5
    inside = values.min() >= 0 and values.max() <= 1
    return closed(value, error, bounded(values) if inside else normal(error, max(1, n - 1)), n, level)


def predicted(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Index of the predicted choice in each row, -1 where generated text names none."""
    return np.array([_index(row) for row in rows.to_dict("records")], dtype=np.int64)


def _index(row: Mapping[str, Any]) -> int:
    if len(row["logprobs"]):
        return int(np.argmax(row["logprobs"]))
    name = held_label if row.get("free_output") is not None else named_label
    found = name(row["output"], list(row["choices"]), row["protocol"])
    return list(row["choices"]).index(found) if found else -1


def named_label(text: str, labels: Sequence[str], protocol: str) -> str | None:
    """The label that a generated text names: the word it starts with (`sound`), or the first that occurs anywhere in it
    in the order PUBLISHED_SEARCH (`published`); None where there is none."""
    if protocol == "published":
        return next((word for word in PUBLISHED_SEARCH if word in labels and word in text), None)
    words = text.split()
    start = words[0].strip(".,;:!?\"'").casefold() if words else ""
    return next((label for label in labels if label.casefold() == start), None)


def held_label(text: str, labels: Sequence[str], protocol: str) -> str | None:
    """The label that a text holds which was forced to: the first that it comes to (`sound`), else as `named_label`."""
    if protocol == "published":
        return named_label(text, labels, protocol)
    places = {label: text.find(label) for label in labels if label in text}
    return min(places, key=places.__getitem__, default=None)


def gold(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Index of the right choice in each row. Errors: StudyError for a row without one, which a cast would make some number."""
    if rows["gold"].isna().any():
        raise StudyError("a row has no gold choice; expected one for each")
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


def accuracy_calibrated(rows: pd.DataFrame) -> Values:
    """As accuracy, each label's log-probability less its prior (contextual calibration, Zhao et al. 2021, section 5)."""
    best = [np.argmax(np.subtract(p, own)) for p, own in zip(rows["logprobs"], rows["priors"], strict=True)]
    return (np.array(best) == gold(rows)).astype(float)


def forced(rows: pd.DataFrame) -> Values:
    """1 where the free greedy text names no label, so that only the constraint brought one."""
    named = (named_label(row.free_output, list(row.choices), row.protocol) for row in rows.itertuples())
    return np.array([label is None for label in named], dtype=float)


def chance(rows: pd.DataFrame) -> Values:
    """Probability that a uniform guess is right."""
    return np.array([1 / len(choices) for choices in rows["choices"]])


def rouge(kind: str) -> Callable[[pd.DataFrame], Values]:
    """A ROUGE F-measure of outputs against their references (Lin 2004, sections 2 and 3), by the rouge-score package.

    kind: `rouge1`, `rouge2` (words and pairs of words in common) or `rougeL` (longest common subsequence). Words are runs of
    ASCII letters and digits in lower case; where the column `stemmer` says so, by Porter's stemmer.
    """

    def values(rows: pd.DataFrame) -> Values:
        from rouge_score.rouge_scorer import RougeScorer  # takes a second, which jobs without such tests need not spend

        stemmed = "stemmer" in rows and bool(rows["stemmer"].any())
        scorer = RougeScorer([kind], use_stemmer=stemmed)
        pairs = zip(rows["reference"], rows["output"], strict=True)
        return np.array([scorer.score(reference, output)[kind].fmeasure for reference, output in pairs])

    return values


def plain(text: str) -> str:
    """An answer as SQuAD compares it: no case, punctuation, articles, extra white space (Rajpurkar et al. 2016)."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(rows: pd.DataFrame) -> Values:
    """1 where the first line of the output is one of the answers that count, compared as SQuAD does."""
    return np.array([float(plain(own) in {plain(one) for one in right}) for own, right in lines(rows)])


def answer_f1(rows: pd.DataFrame) -> Values:
    """F1 of the words that the first line of the output shares with an answer, the best of those that count (SQuAD)."""
    return np.array([max(_shared(plain(own), plain(one)) for one in right) for own, right in lines(rows)])


def lines(rows: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """First line of each output, and the answers that count."""
    firsts = [(text.strip().splitlines() or [""])[0] for text in rows["output"]]
    return list(zip(firsts, (list(own) for own in rows["choices"]), strict=True))


def _shared(own: str, right: str) -> float:
    """F1 of words; of two texts without any 1, of one without any 0."""
    mine, theirs = Counter(own.split()), Counter(right.split())
    if not mine or not theirs:
        return float(mine == theirs)
    return 2 * (mine & theirs).total() / (mine.total() + theirs.total())


def answer_log_likelihood(rows: pd.DataFrame) -> Values:
    """Log-probability of the reference answer after the prompt, nats a token; higher is better."""
    return np.array([p[0] / n[0] for p, n in zip(rows["logprobs"], rows["candidate_tokens"], strict=True)])


def majority(rows: pd.DataFrame, weights: Values) -> Values:
    """Accuracy of always giving the most frequent gold label."""
    classes = np.unique(gold(rows))
    shares = weights @ (gold(rows)[:, None] == classes[None, :]).astype(float)
    return shares.max(axis=1) / weights.sum(axis=1)


def most_predicted(rows: pd.DataFrame, weights: Values) -> Values:
    """Share of the most frequent prediction, 1 for a constant one; text that names no label is a class of its own."""
    guess = predicted(rows)[:, None]
    shares = weights @ (guess == np.unique(guess)[None, :]).astype(float)
    return shares.max(axis=1) / weights.sum(axis=1)


def accuracy_forced(rows: pd.DataFrame, weights: Values) -> Values:
    """Accuracy among the rows whose label was forced; NaN for a resample that has none of them."""
    own = forced(rows)
    right, count = weights @ (own * accuracy(rows)), weights @ own
    return np.divide(right, count, out=np.full_like(right, np.nan), where=count > 0)


def macro_f1(rows: pd.DataFrame, weights: Values) -> Values:
    """F1 averaged over the classes that occur as gold or prediction (of the resample), 0 for one never right."""
    truth, guess = gold(rows)[:, None], predicted(rows)[:, None]
    classes = np.unique(np.concatenate([truth, guess]))
    classes = classes[classes >= 0][None, :]
    right = weights @ ((truth == classes) & (guess == classes)).astype(float)
    present = weights @ (truth == classes).astype(float) + weights @ (guess == classes).astype(float)
    f1 = np.divide(2 * right, present, out=np.zeros_like(right), where=present > 0)
    return f1.sum(axis=1) / (present > 0).sum(axis=1)


def _of_share(rows: Values) -> tuple[float, Margins]:
    """Standard error and margins of a share of rows, given as 0 and 1."""
    value = float(rows.mean())
    return (value * (1 - value) / len(rows)) ** 0.5, share(value, len(rows))


def _of_most(classes: NDArray[np.int64]) -> tuple[float, Margins]:
    """Those of the share of the most frequent class."""
    found, counts = np.unique(classes, return_counts=True)
    return _of_share((classes == found[counts.argmax()]).astype(float))


def macro_f1_uncertainty(rows: pd.DataFrame) -> tuple[float, Margins]:
    """Standard error and margins of `macro_f1`.

    F1 of a class is 2 J / (1 + J) of the share J of right rows among those that it is the gold or the prediction of, so the
    margins of that share are those of F1. Margins of the mean over classes follow from the correlations of the classes' F1,
    by what each row adds to them (as in `statistics.apart`); a class without any spread is taken to move with the others.
    """
    truth, guess = gold(rows)[:, None], predicted(rows)[:, None]
    classes = np.unique(np.concatenate([truth, guess]))
    classes = classes[classes >= 0][None, :]
    right, present = (truth == classes) & (guess == classes), (truth == classes) * 1.0 + (guess == classes)
    f1 = 2 * right.sum(axis=0) / present.sum(axis=0)
    influence = (2 * right - f1 * present) / present.mean(axis=0)
    among = (present > 0).sum(axis=0)
    shares = [(own, share(own, n)) for own, n in zip(right.sum(axis=0) / among, among, strict=True)]
    correlations = _correlations(influence)

    def margins(level: float) -> tuple[float, float]:
        ends = [(own, *own_margins(level)) for own, own_margins in shares]
        below = np.array([_f1(own) - _f1(own - low) for own, low, _ in ends])
        above = np.array([_f1(own + high) - _f1(own) for own, _, high in ends])
        return tuple(max(0.0, float(side @ correlations @ side)) ** 0.5 / len(ends) for side in (below, above))

    return float(influence.mean(axis=1).std()) / len(rows) ** 0.5, margins


def _f1(share: float) -> float:
    """F1 of a class by the share of right rows among those that it is the gold or the prediction of (its Jaccard index)."""
    return 2 * share / (1 + share)


def _correlations(columns: Values) -> Values:
    """Correlations of columns, shape (n, columns); 1 with a column that is always the same."""
    spread = columns.std(axis=0)
    found = np.ones((columns.shape[1], columns.shape[1]))
    moving = np.flatnonzero(spread > 1e-12)
    if len(moving) > 1:
        found[np.ix_(moving, moving)] = np.corrcoef(columns[:, moving].T)
    return found


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
    """Look at gathered scores, or at their rows: each there once, each share a number from 0 to 1 or null for none.

    keys: the columns that name a row. Errors: StudyError naming the first row that is not so.
    """
    scores = table.to_pandas()
    value, share = scores["value"].astype(float), scores["metric"].map(metric_names.is_share)
    null = table["value"].is_null().to_numpy()
    for wrong, what in (
        (scores.duplicated(keys), "is there twice"),
        (~null & ~np.isfinite(value), "is {value}, expected a finite number, or null where there is none"),
        (~null & share & ~value.between(0, 1), "is {value}, expected a share from 0 to 1"),
    ):
        if wrong.any():
            row = scores[wrong].iloc[0]
            place = " ".join(f"{key}={row[key]}" for key in keys)
            raise StudyError(f"{place}: {what.format(value=row['value'])}; delete that part of results/ and run again")


def applicable(method: str, columns: Collection[str]) -> list[str]:
    """Names of the metrics for predictions of a method; those made by an older version may lack a column."""
    return [name for name, metric in METRICS.items() if method in metric.methods and metric.column in columns]


def score(rows: pd.DataFrame, name: str, how: Resampling) -> Interval | None:
    """A metric over the rows of one test with its interval; None where it is about none of them."""
    return METRICS[name].interval(rows, how.level)


def published_value(rows: pd.DataFrame, name: str, how: Resampling) -> float:
    """The middle of the percentile bootstrap's interval, which the released code of arXiv 2408.06663 takes for the value.

    Resamples that the metric has no value for are left out.
    """
    resampled = np.concatenate([METRICS[name].estimates(rows, weights) for weights in how.weights(len(rows))])
    return sum(how.bounds(resampled[~np.isnan(resampled)])) / 2


def scored(
    predictions: pd.DataFrame, suite: Mapping[str, Any], how: Resampling, stemmer: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All metrics of a cell: rows of `tables.SCORES`, and rows of `tables.ITEMS` for the metrics that are means.

    suite: the settings that the predictions were made with; stemmer: whether ROUGE compares stems of words. In the
    `published` protocol the value is that of `published_value`. A metric that has no value has a row of nulls.
    """
    scores, items = [], []
    keys = ["test", "test_format", "shots"]
    for found, rows in predictions.assign(protocol=suite["protocol"], stemmer=stemmer).groupby(keys, sort=False):
        place = dict(zip(keys, found, strict=True))
        main = PRIMARY[KINDS[task.load(place["test"]).kind].method]
        for name in applicable(method(task.load(place["test"]), suite["labels"]), rows):
            metric = METRICS[name]
            values = metric.values(rows) if isinstance(metric, PerRow) else None
            estimate = metric.interval(rows, how.level) if values is None else mean_of(values, how.level)
            row = {"value": None, "error": None, "low": None, "high": None, "n": len(rows)}
            row |= asdict(estimate) if estimate else {}
            if estimate and suite["protocol"] == "published":
                row["value"] = published_value(rows, name, how)
            facts = {"metric": name, "primary": name == main, "better": metric_names.better(name)}
            scores.append({**place, **facts, **row})
            if values is not None:
                items += [
                    {**place, "metric": name, "id": id, "value": v} for id, v in zip(rows["id"], values, strict=True)
                ]
    return scores, items


TRIED = Resampling(resamples=100, level=0.95, seed=0)


def check(suite: Mapping[str, Any], tests: Mapping[str, tuple[Task, Rows, Rows]]) -> None:
    """Score made-up predictions of two rows of each test, so that what cannot be scored is told before a model predicts it.

    suite: its settings; tests: name -> (task, training rows, test rows). ROUGE takes any text, so that its tests are left out.
    Errors: StudyError naming the test.
    """
    from workflow.storage import tables

    for name, (read, _, test) in tests.items():
        if KINDS[read.kind].method == "generate":
            continue
        try:
            made_up = [_made_up(name, read, suite, *row) for row in test[:2]]
            scored(tables.frame(pa.Table.from_pylist(made_up, schema=tables.PREDICTIONS)), suite, TRIED)
        except Exception as error:  # whatever it is, it would come after hours of predicting
            raise StudyError(f"test {name!r}: cannot be scored: {type(error).__name__}: {first_line(error)}") from error


def _made_up(name: str, read: Task, suite: Mapping[str, Any], id: str, example: Example) -> dict[str, Any]:
    """What a model might predict of a row, in the columns of `tables.PREDICTIONS` that scores are made of."""
    how = method(read, suite["labels"])
    compared = len(example.choices) if how in ("label", "rank") else int(how == "answer")
    return {
        "test": name,
        "test_format": suite["formats"][0],
        "shots": suite["shots"][0],
        "id": id,
        "output": example.answer,
        "free_output": example.answer if how == "label_constrained" else None,
        "reference": example.answer,
        "choices": list(example.choices),
        "gold": example.gold,
        "logprobs": [-1.0] * compared,
        "candidate_tokens": [1] * compared,
        "priors": [-1.0] * (compared if how == "label" else 0),
    }
