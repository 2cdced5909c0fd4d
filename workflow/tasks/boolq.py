"""BoolQ: yes/no questions about a passage (Clark et al., 2019). Format `default` is lm-evaluation-harness's."""

from workflow.task import Example, Row, Task, Text

CHOICES = ("no", "yes")


def read(row: Row) -> Example:
    """Passage and question, which has no question mark of its own; the answer is a truth value."""
    gold = int(row["answer"])
    fields = {"passage": row["passage"], "question": row["question"]}
    return Example(fields=fields, answer=CHOICES[gold], choices=CHOICES, gold=gold)


TASK = Task(
    kind="choice",
    hub="google/boolq",
    train="train",
    test="validation",
    sizes={"train": 9_427, "validation": 3_270},
    licence="CC BY-SA 3.0",
    schema={"question": Text, "answer": bool, "passage": Text},
    templates={
        "default": "{passage}\nQuestion: {question}?\nAnswer: ",
        "io": "{passage} {question}?",
        "instruct": "Please read the following text: {passage} Answer the following question: {question}? The answer is ",
    },
    read=read,
)
