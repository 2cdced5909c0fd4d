"""How often findings call something in studies where nothing is: whole studies with reported scores and no true change.

Run from the repository's root: `PYTHONPATH=. python benchmarks/null_studies.py --studies 300`. Models are tuned on four tasks
by two recipes and tested on six at two checkpoints in two formats; scores are off by .02. Prints for each kind of finding and
each conclusion of the paper the share of studies with at least one significant claim (Holm within the kind), with its binomial
standard error. With `--change` one test of each study has a true gain of that size, and the share of studies in which it is
found is printed beside the size that sentences call detectable.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from workflow import registry
from workflow.analysis import analyses
from workflow.analysis.evidence import Evidence
from workflow.report import findings
from workflow.statistics import Resampling
from workflow.storage import tables
from workflow.storage.markdown import markdown
from workflow.study import grid

TASKS = ("mnli", "paws", "social_iqa", "xsum", "rte", "qqp")
TUNED = TASKS[:4]
STEPS = (1000, 2000)
ERROR = 0.02
READ = (
    "performance",
    "tuning_difference",
    "pretraining_change",
    "format_gap",
    "contrast",
    "domain_change",
    "ratio_of_change",
)
CALLED = re.compile(r"(?<!not )significant \(Holm\)|: (?:confirmed|contradicted)\.|hurts on|helps on")
DETECTABLE = re.compile(r"detectable change ([\d.]+) ")
HOW = Resampling(200, 0.95, 0)


def study(rng: np.random.Generator, change: float) -> pd.DataFrame:
    """The analysis of a study with reported scores. change: true gain of mnli by tuning on it."""
    scores = []
    models = [("none", "none", "none"), *((task, "default", recipe) for task in TUNED for recipe in ("full", "lora"))]
    level = {test: rng.uniform(0.3, 0.7) for test in TASKS}
    for train, form, recipe in models:
        for step in STEPS:
            for test in TASKS:
                gain = change if train == test == "mnli" else 0.0
                for test_format in ("default", "io"):
                    keys = {"family": "f", "step": step, "train": train, "format": form, "recipe": recipe, "seed": 0}
                    keys |= {"suite": "s", "test": test, "test_format": test_format, "shots": 0, "metric": "accuracy"}
                    value = level[test] + gain + rng.normal(0, ERROR)
                    scores.append(keys | {"value": value, "error": ERROR, "n": None})
    empty = pd.DataFrame(columns=[*grid.CELL_KEYS, *tables.ITEMS.names])
    evidence = Evidence(empty.loc[:, ~empty.columns.duplicated()], pd.DataFrame(scores))
    rows = [
        {"analysis": name, **row} for name in READ for row in registry.module(analyses, name).analyse(evidence, {}, HOW)
    ]
    return tables.frame(
        pa.Table.from_pylist(rows, schema=pa.schema([pa.field("analysis", pa.string()), *tables.ANALYSIS]))
    )


def said(table: pd.DataFrame) -> list[dict[str, Any]]:
    """All findings of a study."""
    material = findings.FindingTables({"analysis": table}, HOW.level)
    return findings.all_findings(material, pd.DataFrame(columns=tables.AUDIT.names))


def kind(row: dict[str, Any]) -> str:
    """The kind of a finding; of the paper's conclusions which one."""
    found = re.match(r"Conclusion \(([iv]+)\)", row["statement"])
    return f"conclusion ({found[1]})" if found else str(row["finding"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--change", type=float, default=0.0)
    wanted = parser.parse_args()
    rng = np.random.default_rng(wanted.seed)
    called: Counter[str] = Counter()
    kinds: set[str] = set()
    found, sizes = 0, []
    for _ in range(wanted.studies):
        rows = said(study(rng, wanted.change))
        kinds |= {kind(row) for row in rows}
        called.update({kind(row) for row in rows if CALLED.search(row["statement"])})
        own = [
            row
            for row in rows
            if row["statement"].startswith("Tuning on mnli (full)") and "accuracy on mnli" in row["statement"]
        ]
        found += any(CALLED.search(row["statement"]) for row in own)
        sizes += [float(size[1]) for row in own if (size := DETECTABLE.search(row["statement"]))]
    share = {name: called[name] / wanted.studies for name in sorted(kinds)}
    table = [
        {"kind": name, "studies with a claim": f"{100 * p:.1f} ± {100 * (p * (1 - p) / wanted.studies) ** 0.5:.1f}"}
        for name, p in share.items()
    ]
    print(markdown(pd.DataFrame(table)))
    if wanted.change:
        print(f"\nfound in {found} of {wanted.studies}; detectable where it was not found: {np.mean(sizes):.3f}")


if __name__ == "__main__":
    main()
