"""OpenBookQA: elementary science with four options, without the book's facts (Mihaylov et al., 2018).

The prompt is the question form of the kind, as in OLMES; lm-evaluation-harness shows the bare question stem.
"""

from workflow.task import Example, Row, Task, Text
from workflow.tasks import arc_easy


def read(row: Row) -> Example:
    """Question stem and options, in ARC's layout but for the name of the question."""
    return arc_easy.read({**row, "question": row["question_stem"]})


TASK = Task(
    kind="choice",
    hub="allenai/openbookqa",
    subset="main",
    train="train",
    test="validation",
    sizes={"train": 4_957, "validation": 500},
    licence="unknown",
    key="id",
    schema={"id": Text, "question_stem": Text, "choices": {"text": [Text], "label": [Text]}, "answerKey": Text},
    read=read,
)
