"""CNN/DailyMail: highlights of news articles, for evaluation only (See et al., 2017)."""

from workflow.task import Example, Row, Task, Text


def read(row: Row) -> Example:
    """Article as document, its highlights, one a line, as summary."""
    return Example(fields={"document": row["article"]}, answer=row["highlights"])


TASK = Task(
    kind="summary",
    hub="abisee/cnn_dailymail",
    subset="3.0.0",
    test="test",
    sizes={"test": 11_490},
    licence="Apache 2.0, articles © CNN / Daily Mail",
    key="id",
    schema={"article": Text, "highlights": Text, "id": Text},
    read=read,
)
