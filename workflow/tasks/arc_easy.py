"""ARC, easy set: science exam questions with three to five options (Clark et al., 2018).

The right option is named by its label, a letter or, in some exams, a number.
"""

from workflow.task import Example, FieldError, Row, Task, Text, one_of


def read(row: Row) -> Example:
    """Question and options; the answer key is looked up among the options' labels."""
    options, labels = tuple(row["choices"]["text"]), row["choices"]["label"]
    if len(labels) != len(options):
        raise FieldError("choices.label", labels, f"one label for each of the {len(options)} options")
    gold = labels.index(one_of(row, "answerKey", labels))
    return Example(fields={"question": row["question"]}, answer=options[gold], choices=options, gold=gold)


TASK = Task(
    kind="choice",
    hub="allenai/ai2_arc",
    subset="ARC-Easy",
    train="train",
    test="validation",
    sizes={"train": 2_251, "validation": 570},
    licence="CC BY-SA 4.0",
    key="id",
    schema={"id": Text, "question": Text, "choices": {"text": [Text], "label": [Text]}, "answerKey": Text},
    read=read,
)
