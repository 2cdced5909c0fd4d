"""Mini world: the question task on sentences about another event."""

from workflow.task import Example, Row, Task


def read(row: Row) -> Example:
    """Sentence and answer; the reference is the question."""
    return Example(fields={"context": row["context"], "answer": row["answer"]}, answer=row["question"])


TASK = Task(
    kind="question",
    test="test",
    key="id",
    schema={"id": str, "context": str, "answer": str, "question": str},
    read=read,
)
