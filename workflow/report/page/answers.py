"""The answer for each task: its recommendation rows, the best checkpoint, ties, seeds, and how clear the choice is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from workflow import task
from workflow.evaluation import metric_names
from workflow.forecasting import own_cohort
from workflow.report.page.inputs import PageInputs
from workflow.storage import tables

WHOLE = 0.99  # share of rows with one label from which a model counts as constant


@dataclass(frozen=True)
class Answer:
    """The recommendation for a task by one recipe in one suite. rows: of `tables.RECOMMENDATIONS`."""

    task: str
    recipe: str
    suite: str
    rows: pd.DataFrame
    inputs: PageInputs

    @cached_property
    def row(self) -> dict[str, Any]:
        """The row with the answer."""
        return self.rows[self.rows["topic"] == "answer"].iloc[0].to_dict()

    @cached_property
    def bases(self) -> list[dict[str, Any]]:
        """The checkpoints with score and probability to be the best, the best score first."""
        return self.rows[self.rows["topic"] == "base"].to_dict("records")

    @property
    def top(self) -> dict[str, Any]:
        """The checkpoint with the best score that the other lines are about; of several, the last step."""
        return max(self.tied, key=lambda row: row["step"])

    @cached_property
    def tied(self) -> list[dict[str, Any]]:
        """The checkpoints that share the best score."""
        return [row for row in self.bases if row["value"] == self.bases[0]["value"]]

    @cached_property
    def where(self) -> dict[str, Any]:
        """Conditions on the scores: those of the first test where the task is a mean of several."""
        return json.loads(self.row["filter"])

    @property
    def tuned(self) -> bool:
        """Whether the answer is about fine-tuned models."""
        return self.recipe != "none"

    @cached_property
    def sign(self) -> int:
        """1 where a higher score is better, else -1."""
        return -1 if metric_names.better(self.where["metric"]) == "lower" else 1

    @property
    def method(self) -> str:
        """How the task was tuned: `full`, `lora`, `untouched`, or the recipe's name where it is not of this study."""
        recipe = self.inputs.settings.get("recipes", {}).get(self.recipe, {})
        return recipe.get("method", f"recipe {self.recipe}") if self.tuned else "untouched"

    @cached_property
    def scored(self) -> pd.DataFrame:
        """The scores behind the answer, of all checkpoints and seeds, in the primary metric."""
        return tables.matching(self.inputs.table("scores"), self.where)

    @cached_property
    def seeds(self) -> int:
        """The number of seeds of the checkpoint that has most."""
        counts = self.scored.groupby(["family", "step"])["seed"].nunique()
        return int(counts.max()) if len(counts) else 1

    @property
    def is_mean(self) -> bool:
        """Whether the task is a mean over tests: a target of the config, or a mix of tasks."""
        return len(task.components(self.task)) > 1 or any(
            self.task in cohort.get("targets", {}) for cohort in self.inputs.settings["cohorts"].values()
        )

    @cached_property
    def parts(self) -> list[str]:
        """The tests of a mean; none for a single test."""
        cohorts = self.inputs.settings["cohorts"].values()
        targets = [cohort["targets"][self.task] for cohort in cohorts if self.task in cohort.get("targets", {})]
        return [test for _, test in own_cohort.tunings(targets[0])] if targets else []

    def at_top(self, metric: str) -> float | None:
        """Another metric of the best checkpoint on the test, as a mean over seeds; None where it was not computed."""
        where = self.where | {"metric": metric, "family": self.top["family"], "step": self.top["step"]}
        values = tables.matching(self.inputs.table("scores"), where)["value"]
        return float(values.mean()) if len(values) else None

    @cached_property
    def untouched(self) -> float | None:
        """The score of the same checkpoint on the test before fine-tuning; None where it was not tested."""
        keys = {name: "none" for name in ("train", "recipe", "format")}
        keys |= {"suite": self.suite, "family": self.top["family"], "step": self.top["step"]}
        keys |= {name: self.where[name] for name in ("test", "test_format", "shots", "metric")}
        values = tables.matching(self.inputs.table("scores"), keys)["value"]
        return float(values.iloc[0]) if len(values) else None

    @cached_property
    def gain(self) -> dict[str, Any] | None:
        """The row of the analysis with the change by fine-tuning on the test; None where there is none."""
        rows = self.inputs.material.rows("tuning_difference", "difference_of_means")
        names = ("train", "format", "recipe", "suite", "test", "test_format", "shots")
        keys = {"family": self.top["family"], "step": self.top["step"]} | {name: self.where[name] for name in names}
        found = tables.matching(rows, keys)
        return found.iloc[0].to_dict() if len(found) else None

    @property
    def gains(self) -> bool | None:
        """Whether the interval of the change by fine-tuning is above 0 (below, where less is better); None if unknown."""
        if self.is_mean or self.untouched is None or self.gain is None or pd.isna(self.gain["low"]):
            return None
        return bool(min(self.sign * self.gain["low"], self.sign * self.gain["high"]) > 0)

    @cached_property
    def constant(self) -> bool:
        """Whether the best model predicts one label on nearly all rows."""
        share = self.at_top("most_predicted")
        return not self.is_mean and share is not None and share >= WHOLE

    @cached_property
    def trivial(self) -> tuple[str, float] | None:
        """The baseline, chance or majority, that the best score is not above by its interval: name, value."""
        if self.is_mean or self.sign < 0:
            return None
        known = {name: self.at_top(name) for name in ("chance", "majority")}
        above = {name: value for name, value in known.items() if value is not None and self.top["low"] <= value}
        return max(above.items(), key=lambda item: item[1]) if above else None

    @property
    def verdict(self) -> tuple[str, str]:
        """How clear the choice is: key of a style, words."""
        if self.constant:
            return "bad", "predicts one label"
        if self.trivial:
            return "bad", f"not above {self.trivial[0]}"
        if self.tuned and self.gains is False:
            return "bad", "no gain by fine-tuning shown"
        if len(self.bases) == 1:
            return "open", "only one checkpoint"
        if len(self.tied) > 1:
            return "open", "equal scores"
        if self.tuned and self.seeds < 2:
            return "open", "one seed: no recommendation"
        if self.top["probability"] >= self.inputs.level:
            return "good", "clear"
        return "open", "too close to call"


def answers(inputs: PageInputs) -> Iterator[list[Answer]]:
    """The answers for each task and suite: one for each recipe, that with the best score first.

    Untouched checkpoints are asked about only where nothing was tuned.
    """
    table = inputs.table("recommendations")
    if table.empty:
        return
    tuned = table[table["recipe"] != "none"]
    parts = metric_names.parts(inputs.table("scores"))
    shown = tuned if len(tuned) else table[~table["task"].isin(parts)]
    for (name, suite), rows in shown.groupby(["task", "suite"], sort=False):
        found = [
            Answer(name, recipe, suite, _one_way(own), inputs) for recipe, own in rows.groupby("recipe", sort=False)
        ]
        found = [answer for answer in found if (answer.rows["topic"] == "answer").any() and answer.bases]
        if found:
            yield sorted(found, key=lambda answer: -answer.sign * answer.top["value"])


def _one_way(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows in the format and number of few-shot examples of the first answer."""
    ways = rows["filter"].map(lambda text: tuple(json.loads(text).get(name) for name in ("test_format", "shots")))
    first = ways[rows["topic"] == "answer"]
    return rows[[way == first.iloc[0] for way in ways]] if len(first) else rows
