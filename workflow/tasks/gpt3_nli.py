"""GPT3-NLI: machine-written inference pairs with MNLI's labels; the dataset is one split, which is the test here.

Rows are known by their number, since nothing says that `guid` is unique.
"""

from workflow.task import Example, Row, Task, Text, one_of
from workflow.tasks import mnli


def read(row: Row) -> Example:
    """Premise and hypothesis; the label index counts MNLI's labels."""
    gold = one_of(row, "label", range(len(mnli.LABELS)))
    fields = {"premise": row["text_a"], "hypothesis": row["text_b"]}
    return Example(fields=fields, answer=mnli.LABELS[gold], choices=mnli.LABELS, gold=gold)


TASK = Task(
    kind="inference",
    hub="pietrolesci/gpt3_nli",
    test="train",
    sizes={"train": 30_000},
    licence="MIT",
    labels=mnli.LABELS,
    schema={"text_a": Text, "text_b": Text, "label": int},
    read=read,
)
