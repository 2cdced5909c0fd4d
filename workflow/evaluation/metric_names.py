"""Properties of metrics by name: the primary metric of a test, which direction is better, whether it is a share.

Names are those of this package (`metrics.METRICS`) and of the evaluation harnesses whose results a study can import.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from workflow import task

# The primary metric of a test of this package, which figures and analyses use, by the method of its kind.
PRIMARY = {"label": "accuracy", "rank": "accuracy", "generate": "rouge_l", "answer": "exact_match"}

# For a test that is no task here: the first of these that it has; if it has none, the first in alphabetical order.
PREFERRED = (
    *("primary_score", "accuracy", "acc", "acc_raw", "acc_norm", "exact_match", "em", "pass@1", "mc2", "mc1", "mcc", "f1"),
    *("rouge_l", "rougeL", "bits_per_byte", "byte_perplexity", "word_perplexity", "ppl", "pct_stereotype"),
)  # fmt: skip

# Means over rows that are right or wrong: the number of rows follows from their standard error.
BINARY = ("accuracy", "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "accuracy_unconditional", "acc_raw",
          "acc_per_token", "acc_per_char", "acc_uncond", "acc_per_byte", "exact_match", "em", "mc1",
          "pct_stereotype")  # fmt: skip
# Other means that lie between 0 and 1.
SHARES = ("answer_probability", "accuracy_per_token", "accuracy_per_byte", "mc2", "brier_score", "win_rate", "toxicity",
          "chance", "majority", "rouge_1", "rouge_2", "rouge_l")  # fmt: skip
LOWER = ("ppl", "perplexity", "byte_perplexity", "word_perplexity", "bits_per_byte", "bits_per_token", "loss", "brier_score",
         "toxicity", "ter", "wer", "nll", "logits_per_char")  # fmt: skip
UNCONDITIONAL = "accuracy_unconditional"  # needs the log-probability of each choice without a prompt
# Neither direction is better: preferences between two texts, baselines, and shares of predictions.
NEITHER = ("pct_stereotype", "likelihood_difference", "chance", "majority", "most_predicted", "forced")


def base(metric: str) -> str:
    """Return a metric's name without the filter that lm-evaluation-harness appends (`exact_match,strict-match`)."""
    return metric.split(",", 1)[0]


def is_share(metric: str) -> bool:
    """Return whether a metric lies between 0 and 1."""
    return base(metric) in BINARY or base(metric) in SHARES


def better(metric: str) -> str | None:
    """Return which direction of a metric is better: `higher`, `lower`, or None for neither."""
    if base(metric) in NEITHER:
        return None
    return "lower" if base(metric) in LOWER else "higher"


def main(read: task.Task, names: Iterable[str]) -> str | None:
    """Return the primary metric of a task: the first of the metrics it names that is among `names`, else its method's."""
    available = [name for name in read.metrics if name in names]
    return available[0] if available else PRIMARY.get(task.KINDS[read.kind].method or "")


def named(
    scores: list[dict[str, Any]], items: pa.Table, further: Iterable[str] = ()
) -> tuple[list[dict[str, Any]], pa.Table]:
    """Return scores and the table of their rows with only the metrics that a task names, the first of them primary.

    Both have test and metric. Baselines stay, the `further` metrics of a suite, and all metrics of a task that names none of the
    available ones.
    """
    others = (*NEITHER, *further)
    tests = {test: {row["metric"] for row in scores if row["test"] == test} for test in {row["test"] for row in scores}}
    wanted = {test: [name for name in task.load(test).metrics if name in names] for test, names in tests.items()}
    kept = [row for row in scores if not wanted[row["test"]] or row["metric"] in (*wanted[row["test"]], *others)]
    primary = [
        row | {"primary": row["metric"] == wanted[row["test"]][0]} if wanted[row["test"]] else row for row in kept
    ]
    pairs = zip(items["test"].to_numpy(), items["metric"].to_numpy(), strict=True)
    stays = (
        [not wanted[test] or name in (*wanted[test], *others) for test, name in pairs] if any(wanted.values()) else None
    )
    return primary, items if stays is None else items.filter(pa.array(stays, pa.bool_()))


def preferred(test: str, metrics: Iterable[str]) -> str:
    """Return the primary metric of a test among those that it has."""
    available = sorted(metrics)
    usual = main(task.load(test), available) if task.known(test) else None
    order = [name for wanted in (usual, *PREFERRED) for name in available if base(name) == wanted]
    return order[0] if order else ([name for name in available if base(name) not in NEITHER] or available)[0]


def primary(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores in their test's primary metric: by their column `primary`, else by the metric's name.

    A family's suite has one primary metric for a test. Baselines (`chance`, `majority`) are never primary.
    """
    if "primary" in scores and scores["primary"].notna().all():
        return scores[scores["primary"].astype(bool)]
    columns = [key for key in ("family", "suite", "test") if key in scores]
    number = scores.groupby([*columns, "metric"], sort=False, dropna=False).ngroup().to_numpy()
    tests = scores[[*columns, "metric"]].drop_duplicates()
    read = {keys: preferred(rows["test"].iloc[0], rows["metric"]) for keys, rows in tests.groupby(columns)}
    main = [row[-1] == read[row[:-1]] for row in tests.itertuples(index=False, name=None)]
    return scores[np.array(main, dtype=bool)[number]]


def parts(scores: pd.DataFrame) -> set[str]:
    """Return the tests that are part of a mean over tests that the scores contain too, such as a benchmark's subjects."""
    if "part_of" not in scores:
        return set()
    tests = set(scores["test"].unique())
    memberships = scores[["test", "part_of"]].dropna().drop_duplicates()
    return {test for test, mean in memberships.itertuples(index=False, name=None) if mean in tests}


def label(metric: str) -> str:
    """Return the name of a metric for an axis or a sentence."""
    return {
        "rouge_1": "ROUGE-1",
        "rouge_2": "ROUGE-2",
        "rouge_l": "ROUGE-L",
        "rougeL": "ROUGE-L",
        "acc": "accuracy",
        "acc_norm": "normalised accuracy",
    }.get(metric, metric.replace("_", " "))
