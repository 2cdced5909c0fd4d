"""RTE: recognising textual entailment, two labels (Dagan et al., 2006; GLUE).

As in the published study the model chooses among MNLI's three words and "not entailment" counts as `neutral`. The study
scored the training split; here the labelled validation split is scored.
"""

from workflow.task import Example, Row, Task, Text, one_of
from workflow.tasks import mnli


def read(row: Row) -> Example:
    """First sentence as premise, second as hypothesis; label 0 is entailment, 1 becomes neutral."""
    gold = one_of(row, "label", range(2))
    fields = {"premise": row["sentence1"], "hypothesis": row["sentence2"]}
    return Example(fields=fields, answer=mnli.LABELS[gold], choices=mnli.LABELS, gold=gold)


TASK = Task(
    kind="inference",
    hub="nyu-mll/glue",
    subset="rte",
    train="train",
    test="validation",
    sizes={"train": 2_490, "validation": 277},
    licence="CC BY 4.0 (GLUE), texts on their own terms",
    key="idx",
    labels=mnli.LABELS,
    schema={"sentence1": Text, "sentence2": Text, "label": int, "idx": int},
    read=read,
)
