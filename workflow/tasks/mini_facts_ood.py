"""Mini world: multiple-choice questions on natures, for which no question page asks."""

from workflow.task import Example, Row, Task, one_of


def read(row: Row) -> Example:
    """A question and its answer options; `answer` counts them."""
    choices = tuple(row["choices"])
    gold = one_of(row, "answer", range(len(choices)))
    return Example(fields={"question": row["question"]}, answer=choices[gold], choices=choices, gold=gold)


TASK = Task(
    kind="choice",
    test="test",
    key="id",
    schema={"id": str, "question": str, "choices": [str], "answer": int},
    read=read,
)
