"""TriviaQA: questions of quiz leagues with all names of their answer (Joshi et al., 2017), from memory alone."""

from workflow.task import Example, Row, Task, Text, answered


def read(row: Row) -> Example:
    """The question, the answer as its writer put it, and its other names."""
    return answered(row["question"], [row["answer"]["value"], *row["answer"]["aliases"]], "answer.value")


TASK = Task(
    kind="answer",
    hub="mandarjoshi/trivia_qa",
    subset="rc.nocontext",
    train="train",
    test="validation",
    sizes={"train": 138_384, "validation": 17_944},
    licence="unknown",
    schema={"question": Text, "answer": {"value": Text, "aliases": [str]}},
    read=read,
)
