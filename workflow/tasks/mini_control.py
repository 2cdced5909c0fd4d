"""Mini world: rows like those of the inference task with random labels, where nothing can be learned."""

from workflow.task import Example, Row, Task, one_of

LABELS = ("entailment", "neutral", "contradiction")


def read(row: Row) -> Example:
    """Premise and hypothesis; the label is a word of LABELS."""
    label = one_of(row, "label", LABELS)
    fields = {"premise": row["premise"], "hypothesis": row["hypothesis"]}
    return Example(fields=fields, answer=label, choices=LABELS, gold=LABELS.index(label))


TASK = Task(
    kind="inference",
    train="train",
    test="test",
    key="id",
    labels=LABELS,
    schema={"id": str, "premise": str, "hypothesis": str, "label": str},
    read=read,
)
