"""What a metric's name says of a score: which of a test's metrics it is read in, which way is better, whether it is a share.

Names are those of this package (`metrics.METRICS`) and of the evaluation harnesses that `imports` reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from workflow import task

# The one metric of a test of this package that figures and analyses follow, by its kind's method.
PRIMARY = {"label": "accuracy", "rank": "accuracy", "generate": "rouge_l", "answer": "exact_match"}

# Of a test that is no task here, the first of these that it has; of any other names the first in alphabetical order.
PREFERRED = (
    *("primary_score", "accuracy", "acc", "acc_raw", "acc_norm", "exact_match", "em", "pass@1", "mc2", "mc1", "mcc", "f1"),
    *("rouge_l", "rougeL", "bits_per_byte", "byte_perplexity", "word_perplexity", "ppl", "pct_stereotype"),
)  # fmt: skip

# Means over rows of which each is right or wrong: their standard error tells the number of rows.
BINARY = ("accuracy", "acc", "acc_norm", "acc_bytes", "acc_raw", "acc_per_token", "acc_per_char", "acc_uncond", "acc_per_byte",
          "exact_match", "em", "mc1", "pct_stereotype")  # fmt: skip
# Other means that lie between 0 and 1.
SHARES = ("accuracy_per_token", "accuracy_per_byte", "mc2", "brier_score", "win_rate", "toxicity", "chance", "majority",
          "rouge_1", "rouge_2", "rouge_l")  # fmt: skip
LOWER = ("ppl", "perplexity", "byte_perplexity", "word_perplexity", "bits_per_byte", "bits_per_token", "loss", "brier_score",
         "toxicity", "ter", "wer", "nll", "logits_per_char")  # fmt: skip
# How far from even a model is: neither way is better. What guessing gives is no score either.
NEITHER = ("pct_stereotype", "likelihood_difference", "chance", "majority", "most_predicted", "forced")


def base(metric: str) -> str:
    """A metric's name without the filter that lm-evaluation-harness puts behind it (`exact_match,strict-match`)."""
    return metric.split(",", 1)[0]


def is_share(metric: str) -> bool:
    """Whether a metric lies between 0 and 1."""
    return base(metric) in BINARY or base(metric) in SHARES


def better(metric: str) -> str | None:
    """Which way of a metric is better: `higher`, `lower`, or None for neither."""
    if base(metric) in NEITHER:
        return None
    return "lower" if base(metric) in LOWER else "higher"


def main(read: task.Task, names: Iterable[str]) -> str | None:
    """The metric that a task is read in: the first of its own that is among the names, else its method's."""
    own = [name for name in read.metrics if name in names]
    return own[0] if own else PRIMARY.get(task.KINDS[read.kind].method or "")


def named(
    scores: list[dict[str, Any]], items: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Scores and their rows, of a task that names metrics in these alone, the first of them primary; both with test and metric.

    What guessing gives stays, as does every metric of a task that names none of those that its predictions have.
    """
    tests = {test: {row["metric"] for row in scores if row["test"] == test} for test in {row["test"] for row in scores}}
    own = {test: [name for name in task.load(test).metrics if name in there] for test, there in tests.items()}
    kept = [
        [row for row in rows if not own[row["test"]] or row["metric"] in (*own[row["test"]], *NEITHER)]
        for rows in (scores, items)
    ]
    primary = [row | {"primary": row["metric"] == own[row["test"]][0]} if own[row["test"]] else row for row in kept[0]]
    return primary, kept[1]


def preferred(test: str, metrics: Iterable[str]) -> str:
    """The metric that a test is read in, among those that it has."""
    there = sorted(metrics)
    own = main(task.load(test), there) if task.known(test) else None
    order = [name for wanted in (own, *PREFERRED) for name in there if base(name) == wanted]
    return order[0] if order else ([name for name in there if base(name) not in NEITHER] or there)[0]


def primary(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores in the metric that their test is read in: as their column `primary` says, else by the metric's name.

    A family's suite reads a test in one metric. Baselines (`chance`, `majority`) are none.
    """
    if "primary" in scores and scores["primary"].notna().all():
        return scores[scores["primary"].astype(bool)]
    place = [key for key in ("family", "suite", "test") if key in scores]
    number = scores.groupby([*place, "metric"], sort=False, dropna=False).ngroup().to_numpy()
    there = scores[[*place, "metric"]].drop_duplicates()
    read = {keys: preferred(own["test"].iloc[0], own["metric"]) for keys, own in there.groupby(place)}
    main = [row[-1] == read[row[:-1]] for row in there.itertuples(index=False, name=None)]
    return scores[np.array(main, dtype=bool)[number]]


def parts(scores: pd.DataFrame) -> set[str]:
    """The tests that are part of a mean over tests which is there as well, as of a benchmark's subjects."""
    if "part_of" not in scores:
        return set()
    whole = set(scores["test"].unique())
    own = scores[["test", "part_of"]].dropna().drop_duplicates()
    return {test for test, mean in own.itertuples(index=False, name=None) if mean in whole}


def label(metric: str) -> str:
    """Name of a metric for an axis or a sentence."""
    return {
        "rouge_1": "ROUGE-1",
        "rouge_2": "ROUGE-2",
        "rouge_l": "ROUGE-L",
        "rougeL": "ROUGE-L",
        "acc": "accuracy",
        "acc_norm": "normalised accuracy",
    }.get(metric, metric.replace("_", " "))
