"""Mini world: one sentence that sums up a small story of a gift or a sale."""

from workflow.task import Example, Row, Task


def read(row: Row) -> Example:
    """The story; the reference is its summary."""
    return Example(fields={"document": row["document"]}, answer=row["summary"])


TASK = Task(
    kind="summary",
    train="train",
    test="test",
    key="id",
    schema={"id": str, "document": str, "summary": str},
    read=read,
)
