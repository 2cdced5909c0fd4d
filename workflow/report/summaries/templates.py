"""The prompt templates of a study, with trailing spaces (arXiv 2408.06663, v5 Table 5, v1 Table 4)."""

from __future__ import annotations

import pandas as pd

from workflow import task
from workflow.data import prompts
from workflow.report.summaries import StudyTables

READS = ()
NEEDS = ()
SECTION = "study"


def summarise(material: StudyTables) -> pd.DataFrame:
    """One row for each format and template, with the tasks that use it: columns format, kind, tasks, template.

    Conversations have no template, and neither have imported tests without a task in Tunecast.
    """
    tested = material.scores[["test", "test_format"]].set_axis(["task", "format"], axis=1)
    tuned = material.scores.loc[material.scores["train"] != "none", ["train", "format"]].set_axis(
        ["task", "format"], axis=1
    )
    tuned = tuned.assign(task=tuned["task"].map(task.components)).explode("task")
    used = pd.concat([tested, tuned]).drop_duplicates().sort_values("task")
    rows: dict[tuple[str, str, str], list[str]] = {}
    for name, format in used.itertuples(index=False):
        if name in task.names() and task.load(name).kind != "messages":
            loaded = task.load(name)
            rows.setdefault((format, loaded.kind, _template(loaded, format)), []).append(name)
    order = [list(prompts.FORMATS), list(task.KINDS)]
    ordered = sorted(rows, key=lambda key: (order[0].index(key[0]), order[1].index(key[1])))
    cells = [(format, kind, ", ".join(rows[format, kind, text]), text) for format, kind, text in ordered]
    return pd.DataFrame(cells, columns=["format", "kind", "tasks", "template"])


def _template(read: task.Task, format: str) -> str:
    """The template of a task in a format; of a task of lm-evaluation-harness the text in its file."""
    return read.lm_eval.text if read.lm_eval else prompts.template(read, format)
