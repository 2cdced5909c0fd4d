"""Does `duplicate_models` find a double among released series, and nothing in the others?

Run from the repository's root: `PYTHONPATH=. python benchmarks/duplicates.py FOLDER`, with a folder of result files of
lm-evaluation-harness 0.2 or 0.3 (as in EleutherAI/pythia, `evals/pythia-v1`): `config.model_args` names model and revision.
Prints what is found among all series together; then, for each series in turn, whether a copy of four of its steps under another
name is found (all tests), and whether a copy with one test in two changed is not.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from workflow.audit.checks import duplicate_models
from workflow.audit.inputs import AuditInputs
from workflow.storage import tables
from workflow.study import grid

UNTOUCHED = {**grid.UNTOUCHED, "suite": "released", "test_format": "default"}


def read(folder: Path) -> pd.DataFrame:
    """Scores of all files, in the columns of `tables.IMPORTED`; of one model's test in several files the last."""
    rows = {}
    for path in sorted(folder.rglob("*.json")):
        found = json.loads(path.read_text())
        args = str(found.get("config", {}).get("model_args", ""))
        model, step = (re.search(pattern, args) for pattern in (r"pretrained=EleutherAI/([^,]+)", r"step(\d+)"))
        if model and step and isinstance(found["results"], dict):
            place = {"family": model[1], "step": int(step[1]), "shots": found["config"]["num_fewshot"]}
            for test, metrics in found["results"].items():
                for metric in (name for name in metrics if not name.endswith("_stderr")):
                    row = UNTOUCHED | place | {"test": test, "metric": metric, "value": metrics[metric]}
                    row["error"] = metrics.get(f"{metric}_stderr")
                    rows[(*place.values(), test, metric)] = row
    return pd.DataFrame(rows.values()).reindex(columns=tables.IMPORTED.names)


def found(scores: pd.DataFrame) -> list[dict[str, object]]:
    """What the check finds in scores."""
    empty = pd.DataFrame(columns=["analysis", *tables.ANALYSIS.names])
    return list(duplicate_models.check(AuditInputs(scores, empty, [], [], [], {})))


def main() -> None:
    """Print what is found."""
    scores = read(Path(sys.argv[1]))
    print(f"{scores['family'].nunique()} series, {len(scores.groupby(['family', 'step']))} models")
    for row in found(scores):
        print(f"- {row['severity']}: {row['evidence']}")
    generator = np.random.default_rng(0)
    for family, own in scores.groupby("family"):
        steps = sorted(own["step"].unique())[-4:]
        copy = own[own["step"].isin(steps)].assign(family="copy")
        other = copy.assign(value=copy["value"] + generator.choice([0.0, 1e-3], len(copy)))
        whole, half = (
            sum(row["severity"] == "error" for row in found(pd.concat([scores, part]))) for part in (copy, other)
        )
        print(f"{family}: copied steps found as {whole} errors, half-changed ones as {half}")


if __name__ == "__main__":
    main()
