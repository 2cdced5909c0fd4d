"""Natural Questions, open: questions to a search engine with short answers (Lee et al., 2019), from memory alone."""

from workflow.task import Example, Row, Task, Text, answered


def read(row: Row) -> Example:
    """The question and every answer that counts, the first of which is written in tuning."""
    return answered(row["question"], row["answer"], "answer")


TASK = Task(
    kind="answer",
    hub="google-research-datasets/nq_open",
    train="train",
    test="validation",
    sizes={"train": 87_925, "validation": 3_610},
    licence="CC BY-SA 3.0",
    schema={"question": Text, "answer": [Text]},
    read=read,
)
