"""TweetQA as question generation: from a tweet and an answer back to the question (Xiong et al., 2019).

The answers of the test split are hidden, so the validation split is scored; the published study scored the training
split. Its format `io`, which the study lacks for this dataset, is that of the kind. Rows are known by their number, since
`qid` occurs more than once in the training split.
"""

from workflow.task import Example, FieldError, Row, Task, Text


def read(row: Row) -> Example:
    """Tweet and first answer; the question is the text to write."""
    if not row["Answer"]:
        raise FieldError("Answer", row["Answer"], "at least one answer")
    return Example(fields={"context": row["Tweet"], "answer": row["Answer"][0]}, answer=row["Question"])


TASK = Task(
    kind="question",
    hub="ucsbnlp/tweet_qa",
    train="train",
    test="validation",
    sizes={"train": 10_692, "validation": 1_086},
    licence="CC BY-SA 4.0",
    schema={"Question": Text, "Answer": [Text], "Tweet": Text},
    read=read,
)
