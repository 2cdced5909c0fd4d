"""QQP: whether two questions from Quora ask the same (GLUE).

The published study scored the test split, whose labels are hidden (-1) and were counted as "no"; here the labelled
validation split is scored, and a label other than 0 or 1 is an error.
"""

from workflow.task import Example, Row, Task, Text, one_of
from workflow.tasks import paws


def read(row: Row) -> Example:
    """Two questions; label 1 is a duplicate."""
    gold = one_of(row, "label", range(2))
    fields = {"sentence1": row["question1"], "sentence2": row["question2"]}
    return Example(fields=fields, answer=paws.LABELS[gold], choices=paws.LABELS, gold=gold)


TASK = Task(
    kind="paraphrase",
    hub="nyu-mll/glue",
    subset="qqp",
    train="train",
    test="validation",
    sizes={"train": 363_846, "validation": 40_430},
    licence="unknown, Quora's terms",
    key="idx",
    labels=paws.LABELS,
    schema={"question1": Text, "question2": Text, "label": int, "idx": int},
    read=read,
)
