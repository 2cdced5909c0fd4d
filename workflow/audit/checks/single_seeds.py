"""Models fine-tuned with one seed, by a recipe that has one seed everywhere: intervals lack the variance between seeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.audit.inputs import AuditInputs, counted, finding

EVERY_DIFFERENCE = True


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A warning for each family, recipe and suite: a difference is then about the tuned model, not about its base."""
    tuned = material.primary[material.primary["recipe"] != "none"]
    models = ["family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots"]
    seeds = tuned.groupby(models)["seed"].nunique().reset_index()
    known = set(seeds.loc[seeds["seed"] > 1, ["recipe", "suite"]].itertuples(index=False, name=None))
    for (_, recipe, suite), rows in tuned.groupby(["family", "recipe", "suite"]):
        if (recipe, suite) not in known:
            n = len(rows[["step", "train", "format"]].drop_duplicates())
            evidence = (
                f"{counted(n, 'model')} tuned by {recipe}, each with one seed: the variance between seeds is unknown, "
                "so intervals and tests are about these tuned models alone"
            )
            yield finding("warning", rows[["family", "recipe", "suite"]], evidence, value=1.0, limit=2.0, n=n)
