"""SciQ as question generation: from a passage and four answers back to the question (Welbl et al., 2017).

As in the published study the right answer always stands first; the missing spaces are the published code's, which
differ between the formats. The study scored the test split; here the validation split is scored. Format `io`, which the
study lacks for this dataset, follows its SocialIQA: all parts, nothing between them. `support` may be empty.
"""

from workflow.task import Example, Row, Task, Text

FIELDS = ("support", "correct_answer", "distractor1", "distractor2", "distractor3")


def read(row: Row) -> Example:
    """Passage and answers as they stand; the question is the text to write."""
    return Example(fields={name: row[name] for name in FIELDS}, answer=row["question"])


TASK = Task(
    kind="question",
    hub="allenai/sciq",
    train="train",
    test="validation",
    sizes={"train": 11_679, "validation": 1_000},
    licence="CC BY-NC 3.0",
    schema={"question": Text, **dict.fromkeys(FIELDS, Text), "support": str},
    templates={
        "default": (
            "### Input: {support}\n ### Answer: Answer A: {correct_answer} Answer B: {distractor1}"
            " Answer C: {distractor2}Answer D: {distractor3}\n ### Question: "
        ),
        "io": "{support}{correct_answer}{distractor1}{distractor2}{distractor3}",
        "instruct": (
            "Given the context: {support} And the answer: Answer A: {correct_answer} Answer B: {distractor1}"
            "Answer C: {distractor2}Answer D: {distractor3}Generate a suitable question: "
        ),
    },
    read=read,
)
