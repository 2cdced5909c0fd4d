"""Mini world: the summary task on stories with another plot."""

from workflow.task import Example, Row, Task


def read(row: Row) -> Example:
    """The story; the reference is its summary."""
    return Example(fields={"document": row["document"]}, answer=row["summary"])


TASK = Task(
    kind="summary",
    test="test",
    key="id",
    schema={"id": str, "document": str, "summary": str},
    read=read,
)
