"""XSum: one-sentence summaries of BBC articles (Narayan et al., 2018). A document may be empty, a summary may not."""

from workflow.task import EXPORT, Example, Row, Task, Text


def read(row: Row) -> Example:
    """Article as document, its first sentence as summary."""
    return Example(fields={"document": row["document"]}, answer=row["summary"])


TASK = Task(
    kind="summary",
    hub="EdinburghNLP/xsum",
    revision=EXPORT,
    train="train",
    test="test",
    sizes={"train": 204_045, "test": 11_334},
    licence="code MIT, articles © BBC",
    key="id",
    schema={"document": str, "summary": Text, "id": Text},
    read=read,
)
