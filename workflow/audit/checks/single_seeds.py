"""Tunings of a single seed where no tuning of the recipe has two, so that intervals lack the variance between seeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.audit.inputs import AuditInputs, counted, finding

EVERY_DIFFERENCE = True


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """One warning for each family, recipe and suite: a difference then speaks of the tuned model at hand, not of its base."""
    tuned = material.primary[material.primary["recipe"] != "none"]
    models = ["family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots"]
    seeds = tuned.groupby(models)["seed"].nunique().reset_index()
    known = set(seeds.loc[seeds["seed"] > 1, ["recipe", "suite"]].itertuples(index=False, name=None))
    for (_, recipe, suite), rows in tuned.groupby(["family", "recipe", "suite"]):
        if (recipe, suite) not in known:
            n = len(rows[["step", "train", "format"]].drop_duplicates())
            evidence = (
                f"{counted(n, 'model')} tuned by {recipe}, each with one seed: how much another seed would change is not known, "
                "so intervals and tests are about these tuned models alone"
            )
            yield finding("warning", rows[["family", "recipe", "suite"]], evidence, value=1.0, limit=2.0, n=n)
