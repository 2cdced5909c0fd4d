"""PIQA: which of two solutions reaches an everyday goal (Bisk et al., 2020).

The goal takes the question's place in the templates of the kind, as in lm-evaluation-harness.
"""

from workflow.task import EXPORT, Example, Row, Task, Text, one_of


def read(row: Row) -> Example:
    """Goal and two solutions; label 0 is the first."""
    choices = (row["sol1"], row["sol2"])
    gold = one_of(row, "label", range(2))
    return Example(fields={"question": row["goal"]}, answer=choices[gold], choices=choices, gold=gold)


TASK = Task(
    kind="choice",
    hub="ybisk/piqa",
    revision=EXPORT,
    train="train",
    test="validation",
    sizes={"train": 16_113, "validation": 1_838},
    licence="unknown",
    schema={"goal": Text, "sol1": Text, "sol2": Text, "label": int},
    read=read,
)
