"""The pre-training runs of a study: source, steps and size (arXiv 2408.06663, v5 Table 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pandas as pd

from workflow.released import runs
from workflow.report.summaries import StudyTables
from workflow.settings import Family
from workflow.study import token_axis

READS = ("families", "imports")
NEEDS = ()
SECTION = "study"


def summarise(material: StudyTables) -> pd.DataFrame:
    """One row for each family: columns family, source, place, steps (number), first, last, listed, tokens, weights_bytes.

    tokens: up to the last step, if known; weights_bytes: of the last step's weights. A family of imported scores has no
    weights, and its place is the citation of the release.
    """
    steps = {name: sorted(rows["step"].unique()) for name, rows in material.scores.groupby("family")}
    cited = "; ".join(runs.cited(block) for block in material.study["imports"].values())
    seen = token_axis.seen(material.scores) | token_axis.of_study(material.study)
    rows = []
    for name, steps_of_family in steps.items():
        family = material.study["families"].get(name, {"source": "imported", "path": cited})
        row = {"first": steps_of_family[0], "last": steps_of_family[-1], "listed": ", ".join(map(str, steps_of_family))}
        known = {
            "tokens": _tokens(seen.get(name, {}), steps_of_family[-1]),
            "weights_bytes": _bytes(material, name, steps_of_family[-1]),
        }
        rows.append(
            {
                "family": name,
                "source": family["source"],
                "place": _place(cast(Family, family)),
                "steps": len(steps_of_family),
                **row,
                **known,
            }
        )
    return pd.DataFrame(rows).convert_dtypes()


def _place(family: Family) -> str | None:
    """Repository, repositories or folder of a family, or what it averages; None if it is trained in the study."""
    if family["source"] == "merged":
        return f"mean of {family['last']} checkpoints of {family['family']}"
    repos = dict.fromkeys(entry["repo"] for entry in family.get("repos", []))
    return family.get("repo") or family.get("path") or ", ".join(repos) or None


def _tokens(seen: Mapping[int, float], step: int) -> int | None:
    """Tokens that a family has seen by a step, if they are known."""
    return int(seen[step]) if step in seen else None


def _bytes(material: StudyTables, name: str, step: int) -> int | None:
    """Size of a base's weights; None for released scores."""
    files = [base["files"] for base in material.bases if (base["family"], base["step"]) == (name, step)]
    sizes = [facts["bytes"] for manifest in files for path, facts in manifest.items() if path.endswith(".safetensors")]
    return sum(sizes) if sizes else None
