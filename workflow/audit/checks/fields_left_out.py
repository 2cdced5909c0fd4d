"""Fields, such as a passage, that every row of a task has and that a prompt does not use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow import task
from workflow.audit.inputs import AuditInputs, finding, listed
from workflow.data import prompts


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """One warning for each task and format in which it is tuned on or tested, where the template leaves out a field."""
    used = pd.concat(
        [
            material.scores[["test", "test_format"]].set_axis(["task", "format"], axis=1),
            material.scores[["train", "format"]].set_axis(["task", "format"], axis=1),
        ]
    ).drop_duplicates()
    for name, rows_of_task in used[used["task"].isin(material.tasks)].groupby("task"):
        rows = material.examples(str(name), ["fields"])["fields"].map(dict)
        read = task.load(str(name))
        for format in rows_of_task["format"] if read.kind != "messages" else ():
            if left := prompts.left_out(read, format, rows):
                evidence = f"the template leaves out what every row has: {listed(left)}; prompts are asked without it"
                test_keys = pd.DataFrame({"test": [name], "test_format": [format]})
                yield finding("warning", test_keys, evidence, value=float(len(left)), limit=0.0, n=len(rows))
