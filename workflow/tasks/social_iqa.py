"""SocialIQA as question generation: from a situation and its three answers back to the question (Sap et al., 2019).

As in the published study all three answers are listed and the right one is not marked. The missing space before
"Answer C" is the published code's.
"""

from workflow.task import EXPORT, Example, Row, Task, Text

ANSWERS = "Answer A: {answerA} Answer B: {answerB}Answer C: {answerC}"


def read(row: Row) -> Example:
    """Situation and answers as they stand; the question is the text to write."""
    fields = {name: row[name] for name in ("context", "answerA", "answerB", "answerC")}
    return Example(fields=fields, answer=row["question"])


TASK = Task(
    kind="question",
    hub="allenai/social_i_qa",
    revision=EXPORT,
    train="train",
    test="validation",
    sizes={"train": 33_410, "validation": 1_954},
    licence="none stated",
    schema={"context": Text, "question": Text, "answerA": Text, "answerB": Text, "answerC": Text},
    templates={
        "default": f"### Input: {{context}}\n ### Answer: {ANSWERS}\n ### Question: ",
        "io": "{context}{answerA}{answerB}{answerC}",
        "instruct": f"Given the context: {{context}} And the answer: {ANSWERS}Generate a suitable question: ",
    },
    read=read,
)
