"""Mini world: the paraphrase task with the shortcut reversed."""

from workflow.task import Example, Row, Task, one_of

LABELS = ("no", "yes")


def read(row: Row) -> Example:
    """Two sentences; the label is a word of LABELS."""
    label = one_of(row, "label", LABELS)
    fields = {"sentence1": row["sentence1"], "sentence2": row["sentence2"]}
    return Example(fields=fields, answer=label, choices=LABELS, gold=LABELS.index(label))


TASK = Task(
    kind="paraphrase",
    test="test",
    key="id",
    labels=LABELS,
    schema={"id": str, "sentence1": str, "sentence2": str, "label": str},
    read=read,
)
