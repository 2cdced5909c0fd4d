"""XL-Sum, English: one-sentence summaries of BBC articles, for evaluation only (Hasan et al., 2021)."""

from workflow.task import EXPORT, Example, Row, Task, Text


def read(row: Row) -> Example:
    """Article as document, without its title."""
    return Example(fields={"document": row["text"]}, answer=row["summary"])


TASK = Task(
    kind="summary",
    hub="csebuetnlp/xlsum",
    subset="english",
    revision=EXPORT,
    test="test",
    key="id",
    schema={"text": Text, "summary": Text, "id": Text},
    read=read,
)
