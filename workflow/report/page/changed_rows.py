"""Test rows that fine-tuning changed: the best checkpoint of each task before and after, won and lost, sampled with a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workflow import task
from workflow.data import prompts
from workflow.report.page.answers import Answer, answers
from workflow.report.page.inputs import PageInputs
from workflow.study.grid import UNTOUCHED

SAMPLED = 5  # rows won, and rows lost, that are shown
LONGEST = 1500  # characters of a prompt or an output
LISTED = 8  # candidates whose log-probability is shown
PREDICTED = ["test", "test_format", "shots", "id", "output", "reference", "choices", "gold", "logprobs"]


@dataclass(frozen=True)
class Changed:
    """A row that changed. won: whether the fine-tuned model is better on it; candidates: text, log-probability before and
    after, whether it is the right one."""

    id: str
    won: bool
    prompt: str
    gold: str
    before: str
    after: str
    scores: tuple[float, float]
    candidates: list[tuple[str, float, float, bool]]


@dataclass(frozen=True)
class Browser:
    """The changed rows of a task. won, lost, same: their numbers."""

    title: str
    checkpoint: str
    metric: str
    won: int
    lost: int
    same: int
    rows: list[Changed]


def browsers(inputs: PageInputs) -> Iterator[Browser]:
    """The changed rows of each task whose predictions are there."""
    for found in answers(inputs):
        answer = found[0]
        browser = _browser(answer) if answer.tuned and not answer.is_mean else None
        if browser is not None:
            yield browser


def _browser(answer: Answer) -> Browser | None:
    """The changed rows of a task."""
    pair = _pair(answer)
    if pair is None or pair.empty:
        return None
    change = answer.sign * (pair["value_after"] - pair["value_before"])
    won, lost = pair[change > 0], pair[change < 0]
    texts = _prompts(answer)
    seed = int(answer.inputs.settings["statistics"]["seed"])
    rows = [_changed(row, changed is won, texts) for changed in (won, lost) for row in _sampled(changed, seed)]
    name = answer.inputs.checkpoint(answer.top["family"], answer.top["step"])
    return Browser(answer.task, name, answer.where["metric"], len(won), len(lost), int((change == 0).sum()), rows)


def _sampled(rows: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """SAMPLED rows at random, in the order of the table."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[:SAMPLED]
    return rows.iloc[np.sort(chosen)].to_dict("records")


def _pair(answer: Answer) -> pd.DataFrame | None:
    """Predictions and scores of each row, before and after fine-tuning with the first seed."""
    base_keys = answer.where | {"family": answer.top["family"], "step": int(answer.top["step"])}
    at = answer.scored[(answer.scored["family"] == base_keys["family"]) & (answer.scored["step"] == base_keys["step"])]
    if at.empty:
        return None
    sides = [_side(answer, base_keys | UNTOUCHED), _side(answer, base_keys | {"seed": int(at["seed"].min())})]
    if any(side is None for side in sides):
        return None
    before, after = sides
    return before.merge(after, on="id", suffixes=("_before", "_after"))  # type: ignore[union-attr]  # neither is None


def _side(answer: Answer, where: Mapping[str, Any]) -> pd.DataFrame | None:
    """Predictions of one model on the test, with the metric of each row."""
    keys = {name: where[name] for name in ("test", "test_format", "shots")}
    predicted = answer.inputs.cell_rows("predictions", where, keys, PREDICTED)
    scored = answer.inputs.cell_rows("items", where, keys | {"metric": where["metric"]})
    if predicted.empty or scored.empty:
        return None
    return predicted.merge(scored[["id", "value"]], on="id")


def _prompts(answer: Answer) -> dict[str, str]:
    """The prompt of each test row without few-shot examples; none where the rows are not there."""
    name = answer.where["test"]
    path = answer.inputs.prepared / f"{name}.parquet"
    if not path.is_file():
        return {}
    read, _, rows = task.tested(name, path)
    protocol = answer.inputs.settings["suites"][answer.suite]["protocol"]
    return {row: prompts.prompt(read, example.fields, answer.where["test_format"], protocol) for row, example in rows}


def _changed(row: Mapping[str, Any], won: bool, texts: Mapping[str, str]) -> Changed:
    """One row."""
    return Changed(
        row["id"],
        won,
        shortened(texts.get(row["id"], "(the prompt is not in this study's folder)")),
        shortened(str(row["reference_after"])),
        shortened(str(row["output_before"])),
        shortened(str(row["output_after"])),
        (float(row["value_before"]), float(row["value_after"])),
        _candidates(row),
    )


def _candidates(row: Mapping[str, Any]) -> list[tuple[str, float, float, bool]]:
    """The candidates with their log-probabilities before and after; none for generated text."""
    before, after = row["logprobs_before"], row["logprobs_after"]
    if before is None or after is None or len(before) != len(row["choices_after"]) or len(before) != len(after):
        return []
    gold = -1 if pd.isna(row["gold_after"]) else int(row["gold_after"])
    listed = enumerate(zip(row["choices_after"], before, after, strict=True))
    return [(text, float(first), float(then), index == gold) for index, (text, first, then) in listed][:LISTED]


def shortened(text: str) -> str:
    """A text of LONGEST characters at most, its middle left out."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} … {text[-half:]}"
