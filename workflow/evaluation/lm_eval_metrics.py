"""Metrics of lm-evaluation-harness for its tasks, one value for each row.

Source: lm_eval 0.4.13, `ConfigurableTask.process_results`, `filters/` and `exact_match_hf_evaluate`. Predictions are frames with
the columns of `tables.PREDICTIONS`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow.data.lm_eval_tasks import HarnessTask, Words, named

Values = NDArray[np.float64]
Metric = Callable[[pd.DataFrame], Values]


def of(harness: HarnessTask) -> dict[str, Metric]:
    """Return the metrics of a task by name, one for each filter: predictions -> one value for each row."""
    return {
        named(metric, filter): CHOSEN[metric]
        if metric in CHOSEN
        else partial(exact_match, steps=steps, options=dict(options))
        for filter, steps in harness.filters
        for metric, options in harness.metrics
    }


# --- choices -------------------------------------------------------------------------------------------------------------


def _right(scores: Iterable[NDArray[np.float64]], rows: pd.DataFrame) -> Values:
    """Return 1 where the highest score is that of the right choice, else 0."""
    return np.array(
        [float(choice_scores.argmax() == gold) for choice_scores, gold in zip(scores, rows["gold"], strict=True)]
    )


def _per(rows: pd.DataFrame, length: Callable[[str], int]) -> list[NDArray[np.float64]]:
    """Return log-probabilities of choices divided by their lengths."""
    pairs = zip(rows["logprobs"], rows["choices"], strict=True)
    return [
        np.asarray(logprobs, dtype=float) / [float(length(choice)) for choice in choices] for logprobs, choices in pairs
    ]


def acc(rows: pd.DataFrame) -> Values:
    """Return accuracy by log-probability."""
    return _right((np.asarray(logprobs, dtype=float) for logprobs in rows["logprobs"]), rows)


def acc_norm(rows: pd.DataFrame) -> Values:
    """Return accuracy by log-probability per character of the choice."""
    return _right(_per(rows, len), rows)


def acc_bytes(rows: pd.DataFrame) -> Values:
    """Return accuracy by log-probability per UTF-8 byte of the choice."""
    return _right(_per(rows, lambda choice: len(choice.encode())), rows)


def acc_mutual_info(rows: pd.DataFrame) -> Values:
    """Return accuracy by log-probability less that of the choice without a context."""
    return _right(
        (np.subtract(logprobs, prior) for logprobs, prior in zip(rows["logprobs"], rows["priors"], strict=True)), rows
    )


CHOSEN: dict[str, Metric] = {
    "acc": acc,
    "acc_norm": acc_norm,
    "acc_bytes": acc_bytes,
    "acc_mutual_info": acc_mutual_info,
}


# --- generated text ------------------------------------------------------------------------------------------------------


def exact_match(rows: pd.DataFrame, steps: Sequence[tuple[str, Words]], options: dict[str, Any]) -> Values:
    """Return 1 where the filtered output equals a reference, both without what the options ignore, else 0."""
    outputs = (_plain(filtered(text, steps), **options) for text in rows["output"])
    pairs = zip(outputs, rows["choices"], strict=True)
    return np.array([float(text in {_plain(one, **options) for one in accepted}) for text, accepted in pairs])


def _plain(
    text: str,
    regexes_to_ignore: Sequence[str] = (),
    ignore_case: bool = False,
    ignore_punctuation: bool = False,
    ignore_numbers: bool = False,
) -> str:
    """Return a text without what is ignored."""
    for pattern in regexes_to_ignore:
        text = re.sub(pattern, "", text)
    text = text.lower() if ignore_case else text
    ignored = (string.punctuation if ignore_punctuation else "") + (string.digits if ignore_numbers else "")
    return text.translate(str.maketrans("", "", ignored))


def filtered(text: str, steps: Sequence[tuple[str, Words]]) -> str:
    """Return an output after the filters of a task."""
    for name, arguments in steps:
        text = STEPS[name](text, **dict(arguments))
    return text


def _matched(
    text: str, regex_pattern: str = r"#### (\-?[0-9\.\,]+)", group_select: int = 0, fallback: str = "[invalid]"
) -> str:
    """Return the match number `group_select` of a pattern, of its groups the first that is not empty."""
    matches = re.findall(regex_pattern, text)
    if not matches:
        return fallback
    match = matches[group_select]
    groups = [match] if isinstance(match, str) else [group for group in match if group]
    return (groups[0] if groups else fallback).strip()


STEPS: dict[str, Callable[..., str]] = {
    "take_first": lambda text: text,
    "remove_whitespace": str.strip,
    "lowercase": str.lower,
    "uppercase": str.upper,
    "regex": _matched,
}
