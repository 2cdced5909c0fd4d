"""2WikiMultihopQA: questions over two or more articles (Ho et al., 2020), from memory alone."""

from workflow.task import EXPORT, Example, Row, Task, Text, answered


def read(row: Row) -> Example:
    """The question and its one answer."""
    return answered(row["question"], [row["answer"]], "answer")


TASK = Task(
    kind="answer",
    hub="xanhho/2WikiMultihopQA",
    subset="default",
    revision=EXPORT,
    train="train",
    test="validation",
    sizes={"train": 167_454, "validation": 12_576},
    licence="Apache 2.0",
    schema={"_id": Text, "question": Text, "answer": Text},
    key="_id",
    read=read,
)
