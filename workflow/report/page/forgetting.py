"""What a fine-tuned model loses on tests other than the one it was tuned for, against the checkpoint it was tuned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workflow.report import selection
from workflow.report.findings import signed
from workflow.report.page.answers import Answer
from workflow.statistics import holm
from workflow.storage import tables

NAMED = 3  # tests that the sentence names


@dataclass(frozen=True)
class Forgetting:
    """Changes on other tests. tests: their number; drops, rises: significant changes for the worse and for the better (Holm over
    these tests), the largest first; floors: tests on which the untouched checkpoint is at chance or at 0, so that nothing can be
    forgotten."""

    tests: int
    drops: list[dict[str, Any]]
    rises: list[dict[str, Any]]
    floors: list[str]

    @property
    def text(self) -> str:
        """As one sentence."""
        if not self.tests:
            return "No other test was run."
        start = "starts" if len(self.floors) == 1 else "start"
        floor = f" {len(self.floors)} {start} at chance or 0, so there is little to forget." if self.floors else ""
        if not self.drops:
            return f"None of {self.tests} other tests drops significantly.{floor}"
        drop = "drops" if len(self.drops) == 1 else "drop"
        listed = ", ".join(f"{row['test']} {signed(row['value'])}" for row in self.drops[:NAMED])
        more = f" and {len(self.drops) - NAMED} more" if len(self.drops) > NAMED else ""
        return f"{len(self.drops)} of {self.tests} other tests {drop} significantly (Holm over these): {listed}{more}.{floor}"


def forgetting(answer: Answer) -> Forgetting:
    """The changes that the best model of an answer shows on all tests out of its domain."""
    rows = _changes(answer)
    adjusted = holm(rows["p_value"].astype(float).fillna(1.0).to_numpy()) if len(rows) else np.ones(0)
    sure = rows[adjusted < 1 - answer.inputs.level]
    change = answer.inputs.material.improvements(sure).sort_values() if len(sure) else pd.Series(dtype=float)
    drops = sure.loc[change.index[change < 0]].to_dict("records")
    rises = sure.loc[change.index[change > 0][::-1]].to_dict("records")
    dropped = {row["test"] for row in drops}
    floors = [test for test in rows["test"] if test not in dropped and _at_floor(answer, test)]
    return Forgetting(len(rows), drops, rises, floors)


def _changes(answer: Answer) -> pd.DataFrame:
    """Tuned minus untouched on each other test, of the best checkpoint."""
    rows = answer.inputs.material.rows("tuning_difference", "difference_of_means")
    keys = {name: answer.where[name] for name in ("train", "format", "recipe", "suite", "test_format", "shots")}
    rows = tables.matching(rows, keys | {"family": answer.top["family"], "step": answer.top["step"]})
    return selection.related(rows, {"out_of_domain", "cross_task", "benchmark"}) if len(rows) else rows


def _at_floor(answer: Answer, test: str) -> bool:
    """Whether the untouched checkpoint's interval on a test includes chance, or its score is 0."""
    scores = answer.inputs.scores
    keys = {"family": answer.top["family"], "step": answer.top["step"], "suite": answer.suite, "train": "none"}
    keys |= {"test": test, "test_format": answer.where["test_format"], "shots": answer.where["shots"]}
    base_scores = tables.matching(scores, keys)
    if base_scores.empty:
        return False
    row = base_scores.iloc[0]
    test_keys = {"family": row["family"], "suite": row["suite"], "test": test}
    chance = selection.baseline_values(answer.inputs.table("scores"), **test_keys).get("chance", 0.0)
    low = row["value"] if pd.isna(row["low"]) else row["low"]
    return bool(low <= chance)
