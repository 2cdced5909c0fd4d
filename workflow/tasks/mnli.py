"""MNLI, matched: three-way natural language inference (Williams et al., 2018; GLUE)."""

from workflow.task import Example, Row, Task, Text, one_of

LABELS = ("entailment", "neutral", "contradiction")


def read(row: Row) -> Example:
    """Premise and hypothesis; the label index counts LABELS."""
    gold = one_of(row, "label", range(len(LABELS)))
    fields = {"premise": row["premise"], "hypothesis": row["hypothesis"]}
    return Example(fields=fields, answer=LABELS[gold], choices=LABELS, gold=gold)


TASK = Task(
    kind="inference",
    hub="nyu-mll/glue",
    subset="mnli",
    folder="mnli",
    train="train",
    test="validation_matched",
    sizes={"train": 392_702, "validation_matched": 9_815, "validation_mismatched": 9_832},
    licence="by genre: CC BY 3.0, CC BY-SA 3.0, MIT, other",
    files={"validation_matched": "validation"},
    key="idx",
    labels=LABELS,
    schema={"premise": Text, "hypothesis": Text, "label": int, "idx": int},
    read=read,
)
