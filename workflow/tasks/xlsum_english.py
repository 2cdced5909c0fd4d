"""XL-Sum, English: one-sentence summaries of BBC articles, for evaluation only (Hasan et al., 2021).

The source is that of XSum, so that it counts as XSum's second in-domain test, as in arXiv 2408.06663.
"""

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
    sizes={"test": 11_535},
    licence="CC BY-NC-SA 4.0",
    key="id",
    domain="xsum",
    schema={"text": Text, "summary": Text, "id": Text},
    read=read,
)
