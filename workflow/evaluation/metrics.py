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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from workflow import registry, task
from workflow.data.demonstrations import shots
from workflow.errors import StudyError, first_line
from workflow.evaluation import further as further_metrics
from workflow.evaluation import lm_eval_metrics, metric_names
from workflow.evaluation.metric_names import PRIMARY
from workflow.settings import Suite
from workflow.statistics import Interval, Margins, Resampling, bounded, closed, normal, share
from workflow.storage import tables
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


class Resampled:
    """A statistic of rows that follows from sums of columns over them, so that many resamples cost one matrix product."""

    def columns(self, rows: pd.DataFrame) -> Values:
        """Return what is summed, shape (n, columns)."""
        raise NotImplementedError

    def statistic(self, sums: Values, n: int) -> Values:
        """Return one number for each row of sums, shape (resamples, columns), over n rows each."""
        raise NotImplementedError

    def estimates(self, rows: pd.DataFrame, weights: Values) -> Values:
        """Return the statistic for each row of multiplicities, shape (resamples, n), which sum to n."""
        return self.statistic(weights @ self.columns(rows), len(rows))


@dataclass(frozen=True)
class PerRow(Resampled):
    """A mean over rows. methods: those it applies to; values: predictions -> one number per row; column: the one it needs;
    optional: whether it is computed only where a suite or a task names it; better: `higher` or `lower` where `metric_names` does
    not know the metric."""

    methods: tuple[str, ...]
    values: Callable[[pd.DataFrame], Values]
    column: str = "output"
    optional: bool = False
    better: str | None = None

    def columns(self, rows: pd.DataFrame) -> Values:
        """Return the values as one column."""
        return self.values(rows)[:, None]

    def statistic(self, sums: Values, n: int) -> Values:
        """Return the means."""
        return sums[:, 0] / n

    def interval(self, rows: pd.DataFrame, level: float) -> Interval:
        """Return the mean with its interval over rows: for values between 0 and 1 in closed form, for others Student's."""
        return mean_of(self.values(rows), level)


@dataclass(frozen=True)
class Overall(Resampled):
    """A statistic of all rows. counted: predictions -> what is summed over rows, shape (n, columns); of_sums: (sums of shape
    (resamples, columns), n) -> one number per resample, NaN if the statistic applies to none of its rows; uncertainty:
    predictions -> standard error and margins of the statistic; methods, column, optional, better: as in PerRow."""

    methods: tuple[str, ...]
    counted: Callable[[pd.DataFrame], Values]
    of_sums: Callable[[Values, int], Values]
    uncertainty: Callable[[pd.DataFrame], tuple[float, Margins]]
    column: str = "output"
    optional: bool = False
    better: str | None = None

    def columns(self, rows: pd.DataFrame) -> Values:
        """Return what is summed over rows."""
        return self.counted(rows)

    def statistic(self, sums: Values, n: int) -> Values:
        """Return the statistic of sums."""
        return self.of_sums(sums, n)

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
    compared = np.array([len(logprobs) > 0 for logprobs in rows["logprobs"]], dtype=bool)
    indices = np.empty(len(rows), dtype=np.int64)
    indices[compared] = largest(rows["logprobs"][compared])
    indices[~compared] = [_named(row) for row in rows[~compared].to_dict("records")]
    return indices


def largest(values: Sequence[Any] | pd.Series) -> NDArray[np.int64]:
    """Return the index of the largest value in each row, of rows of any lengths."""
    rows = [np.asarray(row, dtype=float) for row in values]
    if len({len(row) for row in rows}) == 1:
        return np.stack(rows).argmax(axis=1)
    return np.array([row.argmax() for row in rows], dtype=np.int64)


def _named(row: Mapping[str, Any]) -> int:
    """Return the index of the label that a row's generated text names; -1 if it names none."""
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
    indices = largest([np.divide(p, n) for p, n in zip(rows["logprobs"], lengths, strict=True)])
    return (indices == gold(rows)).astype(float)


def accuracy_calibrated(rows: pd.DataFrame) -> Values:
    """Return accuracy with each label's prior subtracted (contextual calibration, Zhao et al. 2021, section 5)."""
    best = largest([np.subtract(p, prior) for p, prior in zip(rows["logprobs"], rows["priors"], strict=True)])
    return (best == gold(rows)).astype(float)


def accuracy_unconditional(rows: pd.DataFrame) -> Values:
    """Return accuracy with choices compared by log-probability less that without a prompt (Brown et al. 2020, section 2.4)."""
    best = largest([np.subtract(p, prior) for p, prior in zip(rows["logprobs"], rows["priors"], strict=True)])
    return (best == gold(rows)).astype(float)


def answer_probability(rows: pd.DataFrame) -> Values:
    """Return the probability of the right choice, normalised over all choices of the row."""
    chosen = zip(rows["logprobs"], gold(rows), strict=True)
    return np.array([np.exp(logprobs[index] - np.logaddexp.reduce(logprobs)) for logprobs, index in chosen])


def bits_per_byte(rows: pd.DataFrame) -> Values:
    """Return the negative log-probability of the right answer after the prompt, in bits per UTF-8 byte; lower is better."""
    return np.array(
        [
            -logprobs[index] / np.log(2) / len(choices[index].encode())
            for logprobs, index, choices in zip(rows["logprobs"], gold(rows), rows["choices"], strict=True)
        ]
    )


def forced(rows: pd.DataFrame) -> Values:
    """Return 1 where the free greedy text names no label, so that only the constraint forced one, else 0."""
    named = (named_label(row.free_output, list(row.choices), row.protocol) for row in rows.itertuples())
    return np.array([label is None for label in named], dtype=float)


def chance(rows: pd.DataFrame) -> Values:
    """Return the probability that a uniform guess is right."""
    return np.array([1 / len(choices) for choices in rows["choices"]])


ROUGE = ("rouge1", "rouge2", "rougeL")


def rouge(kind: str) -> Callable[[pd.DataFrame], Values]:
    """Return a function for a ROUGE F-measure of outputs and references (Lin 2004, sections 2, 3), by the rouge-score package.

    kind: `rouge1`, `rouge2` (words and pairs of words in common) or `rougeL` (longest common subsequence). Words are runs of
    ASCII letters and digits in lower case; if the column `stemmer` is set, their stems by Porter's stemmer.
    """

    def values(rows: pd.DataFrame) -> Values:
        stemmed = "stemmer" in rows and bool(rows["stemmer"].any())
        pairs = zip(rows["reference"], rows["output"], strict=True)
        return np.array([_rouge(reference, output, stemmed)[kind] for reference, output in pairs])

    return values


@lru_cache(maxsize=200_000)  # the three kinds of a test ask for the same pairs of texts
def _rouge(reference: str, output: str, stemmed: bool) -> dict[str, float]:
    """Return all ROUGE F-measures of a pair of texts by kind."""
    return {kind: score.fmeasure for kind, score in _scorer(stemmed).score(reference, output).items()}


@cache
def _scorer(stemmed: bool) -> Any:
    """Return the package's scorer, whose tokenizer remembers the last two texts: each kind of ROUGE asks for both."""
    from rouge_score.rouge_scorer import RougeScorer  # takes a second, which jobs without such tests need not spend
    from rouge_score.tokenizers import DefaultTokenizer

    tokenizer = DefaultTokenizer(stemmed)
    tokenizer.tokenize = lru_cache(maxsize=2)(tokenizer.tokenize)
    return RougeScorer(ROUGE, tokenizer=tokenizer)


BARE = str.maketrans("", "", string.punctuation)


def plain(text: str) -> str:
    """Normalise an answer as SQuAD does: no case, punctuation, articles or extra white space (Rajpurkar et al. 2016)."""
    bare = text.lower().translate(BARE)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(rows: pd.DataFrame) -> Values:
    """Return 1 where the first line of the output equals an accepted answer, compared as in SQuAD, else 0."""
    return np.array([float(plain(line) in {plain(one) for one in accepted}) for line, accepted in lines(rows)])


def answer_f1(rows: pd.DataFrame) -> Values:
    """Return the word F1 of the first line of the output and the best accepted answer (SQuAD)."""
    return np.array([max(_shared(plain(line), plain(one)) for one in accepted) for line, accepted in lines(rows)])


def first_line_of(text: str) -> str:
    """Return the first line of an output, which is compared with the answers."""
    return (text.strip().splitlines() or [""])[0]


def lines(rows: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return the first line of each output, and the accepted answers."""
    firsts = map(first_line_of, rows["output"])
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


def gold_counts(rows: pd.DataFrame) -> Values:
    """Return a column for each gold label: 1 where it is the row's, else 0."""
    return _one_hot(gold(rows))


def predicted_counts(rows: pd.DataFrame) -> Values:
    """Return a column for each prediction: 1 where it is the row's, else 0; text that names no label is a separate class."""
    return _one_hot(predicted(rows))


def _one_hot(classes: NDArray[np.int64]) -> Values:
    return (classes[:, None] == np.unique(classes)[None, :]).astype(float)


def most(sums: Values, n: int) -> Values:
    """Return the share of the most frequent class: of gold labels the accuracy of always predicting it, of predictions 1 if
    they are constant."""
    return sums.max(axis=1) / n


def forced_counts(rows: pd.DataFrame) -> Values:
    """Return two columns: rows whose label was forced and right, rows whose label was forced."""
    is_forced = forced(rows)
    return np.stack([is_forced * accuracy(rows), is_forced], axis=1)


def accuracy_forced(sums: Values, n: int) -> Values:
    """Return the accuracy among rows whose label was forced; NaN for a resample without such rows."""
    right, count = sums.T
    return np.divide(right, count, out=np.full_like(right, np.nan), where=count > 0)


def class_counts(rows: pd.DataFrame) -> Values:
    """Return two columns for each class that is a gold label or a prediction: rows where it is both, and where it is either
    (2 where both); first all of the former."""
    truth, guess = gold(rows)[:, None], predicted(rows)[:, None]
    classes = np.unique(np.concatenate([truth, guess]))
    classes = classes[classes >= 0][None, :]
    right, present = (truth == classes) & (guess == classes), (truth == classes) * 1.0 + (guess == classes)
    return np.hstack([right, present])


def macro_f1(sums: Values, n: int) -> Values:
    """Return F1 averaged over the classes that occur as gold or prediction in the resample, 0 for a class never right."""
    right, present = np.hsplit(sums, 2)
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
    right, present = np.hsplit(class_counts(rows), 2)
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
        ("label_constrained",),
        forced_counts,
        accuracy_forced,
        lambda rows: _of_share(accuracy(rows)[forced(rows) == 1]),
    ),
    "accuracy_per_token": PerRow(("rank",), accuracy_per_token),
    "accuracy_per_byte": PerRow(("rank",), accuracy_per_byte),
    "accuracy_unconditional": PerRow(("rank",), accuracy_unconditional, column="priors", optional=True),
    "answer_f1": PerRow(("answer",), answer_f1),
    "answer_log_likelihood": PerRow(("answer",), answer_log_likelihood, column="logprobs"),
    "answer_probability": PerRow(("label", "rank"), answer_probability, column="logprobs", optional=True),
    "bits_per_byte": PerRow(("label", "rank", "answer"), bits_per_byte, column="logprobs", optional=True),
    "chance": PerRow((*LABEL, "rank"), chance),
    "exact_match": PerRow(("answer",), exact_match),
    "forced": PerRow(("label_constrained",), forced),
    "macro_f1": Overall(LABEL, class_counts, macro_f1, macro_f1_uncertainty),
    "majority": Overall(LABEL, gold_counts, most, lambda rows: _of_most(gold(rows))),
    "most_predicted": Overall(LABEL, predicted_counts, most, lambda rows: _of_most(predicted(rows))),
    "rouge_1": PerRow(("generate",), rouge("rouge1")),
    "rouge_2": PerRow(("generate",), rouge("rouge2")),
    "rouge_l": PerRow(("generate",), rouge("rougeL")),
}


def checked(
    tables: Iterable[pa.Table], keys: Sequence[str], again: Callable[[int], pa.Table] | None = None
) -> Iterator[pa.Table]:
    """Yield tables of scores, or of their rows, after a check: each once, each value finite or null, each share from 0 to 1.

    keys: the columns that identify a row; again: number of an earlier table -> that table, to look for rows that occur in two
    tables without keeping them all. Errors: StudyError naming the first row that fails.
    """
    cells = [key for key in keys if key != "id"]
    seen: dict[tuple[Any, ...], int] = {}
    for number, table in enumerate(tables):
        distinct = table.select(cells).to_pandas(strings_to_categorical=True).drop_duplicates()
        heads = list(distinct.itertuples(index=False, name=None))
        shared = sorted({seen[head] for head in heads if head in seen})
        check_scores(pa.concat_tables([*(again(other) for other in shared if again), table]), keys)
        seen |= dict.fromkeys(heads, number)
        yield table


def check_scores(table: pa.Table, keys: Sequence[str]) -> None:
    """Check one table as `checked` does."""
    scores = table.select([*keys, "value"]).to_pandas(strings_to_categorical=True)
    value, share = scores["value"].astype(float), scores["metric"].map(metric_names.is_share).astype(bool)
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


def named(name: str) -> PerRow | Overall:
    """Return the metric of a name, of this module or of the study's folder `metrics`.

    Errors: StudyError for a module of the study that defines none.
    """
    if name in METRICS:
        return METRICS[name]
    metric = getattr(registry.module(further_metrics, name), "METRIC", None)
    if not isinstance(metric, PerRow | Overall):
        raise StudyError(f"metrics/{name}.py: found no METRIC; expected a line `METRIC = PerRow(...)`")
    return metric


def optional() -> list[str]:
    """Return the names of the metrics that are computed only where a suite or a task names them."""
    return [*(name for name, metric in METRICS.items() if metric.optional), *registry.modules(further_metrics)]


def applicable(method: str, columns: Collection[str], further: Collection[str] = ()) -> list[str]:
    """Return the names of the metrics for a method whose columns exist; predictions of older versions may lack some.

    further: optional metrics to compute.
    """
    wanted = [name for name, metric in METRICS.items() if name in further or not metric.optional]
    wanted += [name for name in dict.fromkeys(further) if name not in METRICS]
    return [name for name in wanted if method in named(name).methods and named(name).column in columns]


def of(read: Task, labels: str, columns: Collection[str], further: Collection[str] = ()) -> dict[str, PerRow | Overall]:
    """Return the metrics of a task's predictions by name; of a task of lm-evaluation-harness those of its file.

    labels: the suite's key of that name; columns: of the predictions; further: optional metrics that the suite names.
    """
    way = method(read, labels)
    if not read.lm_eval:
        return {name: named(name) for name in applicable(way, columns, (*further, *read.metrics))}
    found: dict[str, PerRow | Overall] = {
        name: PerRow((way,), values) for name, values in lm_eval_metrics.of(read.lm_eval).items()
    }
    return found | ({"chance": METRICS["chance"]} if way == "rank" else {})


def score(rows: pd.DataFrame, name: str, resampling: Resampling) -> Interval | None:
    """Return a metric over the rows of one test with its interval; None if it applies to none of them."""
    return named(name).interval(rows, resampling.level)


def published_values(rows: pd.DataFrame, names: Sequence[str], resampling: Resampling) -> dict[str, float]:
    """Return the midpoints of metrics' percentile bootstrap intervals, which the released code of arXiv 2408.06663 reports as
    values.

    All metrics share the resamples. Resamples for which a metric has no value are left out.
    """
    columns = {name: named(name).columns(rows) for name in names}
    ends = np.cumsum([column.shape[1] for column in columns.values()])[:-1]
    sums = np.hsplit(resampling.sums(np.hstack(list(columns.values()))), ends)
    resampled = {name: named(name).statistic(column, len(rows)) for name, column in zip(columns, sums, strict=True)}
    return {name: sum(resampling.bounds(column[~np.isnan(column)])) / 2 for name, column in resampled.items()}


def scored(
    predictions: pd.DataFrame,
    suite: Suite,
    resampling: Resampling,
    stemmer: bool = False,
    further: Collection[str] = (),
) -> tuple[list[dict[str, Any]], pa.Table]:
    """Return all metrics of a cell: rows of `tables.SCORES`, and a table of `tables.ITEMS` for metrics that are means.

    suite: the settings of the predictions; stemmer: whether ROUGE compares word stems; further: optional metrics to compute. In
    the `published` protocol the value is that of `published_values`. A metric without a value has a row of nulls.
    """
    scores, items = [], [tables.ITEMS.empty_table()]
    keys = ["test", "test_format", "shots"]
    for group, rows in predictions.assign(protocol=suite["protocol"], stemmer=stemmer).groupby(keys, sort=False):
        where = dict(zip(keys, group, strict=True))
        main = PRIMARY[str(task.method(where["test"]))]
        intervals: dict[str, Interval | None] = {}
        chosen = of(task.load(where["test"]), suite["labels"], rows, further)
        for name, metric in chosen.items():
            if isinstance(metric, PerRow):
                values = metric.values(rows)
                intervals[name] = mean_of(values, resampling.level)
                items.append(_items(where, name, rows["id"], values))
            else:
                intervals[name] = metric.interval(rows, resampling.level)
        values_of = {name: estimate.value for name, estimate in intervals.items() if estimate}
        if suite["protocol"] == "published":
            values_of = published_values(rows, list(values_of), resampling)
        for name, estimate in intervals.items():
            row: dict[str, Any] = {"value": None, "error": None, "low": None, "high": None, "n": len(rows)}
            row |= asdict(estimate) | {"value": values_of[name]} if estimate else {}
            facts = {
                "metric": name,
                "primary": name == main,
                "better": chosen[name].better or metric_names.better(name),
            }
            scores.append({**where, **facts, **row})
    return scores, pa.concat_tables(items)


def _items(where: Mapping[str, Any], name: str, ids: pd.Series, values: Values) -> pa.Table:
    """Return a metric's values of the rows of one test, in the columns of `tables.ITEMS`."""
    keys = {key: pa.repeat(pa.scalar(value, tables.ITEMS.field(key).type), len(values)) for key, value in where.items()}
    value = {"metric": pa.repeat(name, len(values)), "id": pa.array(ids, pa.string()), "value": pa.array(values)}
    return pa.table(keys | value, schema=tables.ITEMS)


TRIED = Resampling(resamples=100, level=0.95, seed=0)


def check(suite: Suite, tests: Mapping[str, tuple[Task, Rows, Rows]]) -> None:
    """Score invented predictions for two rows of each test, so that a test that cannot be scored fails before prediction.

    suite: its settings; tests: name -> (task, training rows, test rows). ROUGE accepts any text, so its tests are left out.
    Errors: StudyError naming the test.
    """
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
        "shots": shots(name, suite["shots"])[0],
        "id": id,
        "output": example.answer,
        "free_output": example.answer if way == "label_constrained" else None,
        "reference": example.answer,
        "choices": list(example.choices),
        "gold": example.gold,
        "logprobs": [-1.0] * compared,
        "candidate_tokens": [1] * compared,
        "priors": [-1.0] * (compared if way == "label" or read.lm_eval else 0),
    }
