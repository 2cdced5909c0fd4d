"""HotpotQA: questions that take two articles to answer (Yang et al., 2018), from memory alone."""

from workflow.task import EXPORT, Example, Row, Task, Text, answered


def read(row: Row) -> Example:
    """The question and its one answer."""
    return answered(row["question"], [row["answer"]], "answer")


TASK = Task(
    kind="answer",
    hub="hotpotqa/hotpot_qa",
    subset="distractor",
    revision=EXPORT,
    train="train",
    test="validation",
    sizes={"train": 90_447, "validation": 7_405},
    licence="CC BY-SA 4.0",
    schema={"id": Text, "question": Text, "answer": Text},
    key="id",
    read=read,
)
