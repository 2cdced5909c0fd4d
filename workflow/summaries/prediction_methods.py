"""How labels are predicted, and how well: methods side by side at the last step (arXiv 2408.06663, v5 Table 3, v1 Table 2).

Of a study's own suites the method is the key `labels` (score: log-probability, generate: free text, constrained: text
that must hold a label). Imported scores are `released`: the reader of the release says how they were made.
"""

from __future__ import annotations

import pandas as pd

from workflow import task
from workflow.summaries import INTERVAL, Material

READS = ("suites",)
NEEDS = ()
SECTION = "formats"
KEYS = ["family", "step", "test", "train", "recipe", "seed", "test_format", "shots", "suite"]


def summarise(material: Material) -> pd.DataFrame:
    """One row for each label test, model (the untouched base, or one tuned on a task of the test's kind) and suite.

    Columns: KEYS, protocol, method, value (accuracy) with interval, and n rows. The last step is that of each family.
    """
    scores = material.scores[material.scores["metric"] == "accuracy"]
    kinds = {name: task.load(name).kind for name in task.names()}
    tests = [kind for kind, own in task.KINDS.items() if own.method == "label"]
    own = scores["test"].map(kinds).isin(tests) & (
        (scores["train"] == "none") | (scores["train"].map(kinds) == scores["test"].map(kinds))
    )
    last = scores["step"] == scores.groupby("family")["step"].transform("max")
    rows = scores[own & last].sort_values(KEYS)
    suites = material.study["suites"]
    rows["method"] = [suites[name]["labels"] if name in suites else "released" for name in rows["suite"]]
    rows["protocol"] = [suites[name]["protocol"] if name in suites else "released" for name in rows["suite"]]
    return rows[[*KEYS, "protocol", "method", *INTERVAL, "n"]]
