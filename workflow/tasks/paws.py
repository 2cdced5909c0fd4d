"""PAWS: paraphrase or not, for sentence pairs of high word overlap (Zhang et al., 2019)."""

from workflow.task import Example, Row, Task, Text, one_of

LABELS = ("no", "yes")


def read(row: Row) -> Example:
    """Two sentences; label 1 is a paraphrase."""
    gold = one_of(row, "label", range(2))
    fields = {"sentence1": row["sentence1"], "sentence2": row["sentence2"]}
    return Example(fields=fields, answer=LABELS[gold], choices=LABELS, gold=gold)


TASK = Task(
    kind="paraphrase",
    hub="google-research-datasets/paws",
    subset="labeled_final",
    train="train",
    test="test",
    sizes={"train": 49_401, "test": 8_000},
    licence="free for any purpose",
    key="id",
    labels=LABELS,
    schema={"id": int, "sentence1": Text, "sentence2": Text, "label": int},
    read=read,
)
