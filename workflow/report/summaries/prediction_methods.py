"""Methods of predicting labels and their accuracy, side by side at the last step (arXiv 2408.06663, v5 Table 3, v1 Table 2).

For the study's suites the method is the key `labels` (score: log-probability, generate: free text, constrained: text that
must contain a label). For imported scores it comes from the reader of the release (LABELS), `released` if unknown.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from workflow import task
from workflow.released import runs
from workflow.report.summaries import INTERVAL, StudyTables

READS = ("families", "suites", "imports")
NEEDS = ()
SECTION = "formats"
KEYS = ["family", "step", "test", "train", "recipe", "seed", "test_format", "shots", "suite"]


def summarise(material: StudyTables) -> pd.DataFrame:
    """One row for each label test, model (the untouched base, or one fine-tuned on a task of the test's kind) and suite.

    Columns: KEYS, protocol, method, value (accuracy) with interval, and n rows. Only the last step of each family is
    included.
    """
    scores = material.scores[material.scores["metric"] == "accuracy"]
    kinds = {name: task.load(name).kind for name in task.names()}
    tests = [kind for kind, settings in task.KINDS.items() if settings.method == "label"]
    alike = [task.alike(train, test) for train, test in zip(scores["train"], scores["test"], strict=True)]
    selected = scores["test"].map(kinds).isin(tests) & ((scores["train"] == "none") | np.array(alike, dtype=bool))
    last = scores["step"] == scores.groupby("family")["step"].transform("max")
    rows = scores[selected & last].sort_values(KEYS)
    methods = [_made(material, family, suite) for family, suite in rows[["family", "suite"]].itertuples(index=False)]
    rows["protocol"], rows["method"] = zip(*methods, strict=True) if methods else ((), ())
    return rows[[*KEYS, "protocol", "method", *INTERVAL, "n"]]


def _made(material: StudyTables, family: str, suite: str) -> tuple[str, str]:
    """Protocol and method of a family's scores in a suite.

    A family of released scores may share a suite's name with the study.
    """
    study = material.study
    if family in study["families"]:
        return study["suites"][suite]["protocol"], study["suites"][suite]["labels"]
    known = [runs.reader(block).LABELS for block in study["imports"].values()]
    return next((settings[suite] for settings in known if suite in settings), ("released", "released"))
