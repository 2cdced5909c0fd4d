"""HellaSwag: which of four endings continues a scene or an instruction (Zellers et al., 2019).

Text is cleaned as usual: the marks of WikiHow's headings go. The prompt is the activity and the beginning, as in
lm-evaluation-harness. It ends in a space in every format, since an ending carries the sentence on. Rows are known by
their number: `ind` counts ActivityNet and WikiHow separately.
"""

import re

from workflow.task import Example, FieldError, Row, Task, Text, one_of


def cleaned(text: str) -> str:
    """Text without heading marks: a title becomes the end of a sentence, any other bracketed mark nothing."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def read(row: Row) -> Example:
    """Activity and beginning as context; the label, a digit, counts the endings."""
    endings = tuple(cleaned(ending) for ending in row["endings"])
    if len(endings) != 4:
        raise FieldError("endings", row["endings"], "four endings")
    gold = int(one_of(row, "label", "0123"))
    context = cleaned(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    return Example(fields={"context": context}, answer=endings[gold], choices=endings, gold=gold)


TASK = Task(
    kind="choice",
    hub="Rowan/hellaswag",
    train="train",
    test="validation",
    sizes={"train": 39_905, "validation": 10_042},
    licence="MIT",
    schema={"activity_label": Text, "ctx_a": Text, "ctx_b": str, "endings": [Text], "label": str},
    templates={
        "default": "{context} ",
        "io": "{context} ",
        "instruct": "Please continue the following text: {context} ",
    },
    read=read,
)
