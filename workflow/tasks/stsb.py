"""STS-B: semantic similarity of two sentences, read as paraphrase or not (Cer et al., 2017; GLUE).

The published study scored the test split, whose scores are hidden (-1) and were counted as "no"; here the labelled
validation split is scored, and a score outside the scale is an error.
"""

from workflow.task import Example, FieldError, Row, Task, Text
from workflow.tasks import paws

THRESHOLD = 3.5  # the published study's: a score above it is a paraphrase


def read(row: Row) -> Example:
    """Two sentences; a similarity above THRESHOLD, on the scale from 0 to 5, is a paraphrase."""
    score = row["label"]
    if not 0 <= score <= 5:
        raise FieldError("label", score, "a score from 0 to 5")
    gold = int(score > THRESHOLD)
    fields = {"sentence1": row["sentence1"], "sentence2": row["sentence2"]}
    return Example(fields=fields, answer=paws.LABELS[gold], choices=paws.LABELS, gold=gold)


TASK = Task(
    kind="paraphrase",
    hub="nyu-mll/glue",
    subset="stsb",
    train="train",
    test="validation",
    sizes={"train": 5_749, "validation": 1_500},
    licence="CC BY 4.0 (GLUE), texts on their own terms",
    key="idx",
    labels=paws.LABELS,
    schema={"sentence1": Text, "sentence2": Text, "label": float, "idx": int},
    read=read,
)
