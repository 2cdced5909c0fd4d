"""SciQ as multiple choice: science exam questions with their passage (Welbl et al., 2017).

Format `default` is lm-evaluation-harness's, whose prompt starts with the passage, empty or not. The rows hold no order of
the options; they are sorted, so that the place of the right one tells nothing.
"""

from workflow.task import Example, Row, Task, Text

OPTIONS = ("correct_answer", "distractor1", "distractor2", "distractor3")


def read(row: Row) -> Example:
    """Passage and question; the options in alphabetical order."""
    answer = row["correct_answer"]
    choices = tuple(sorted(row[name] for name in OPTIONS))
    fields = {"support": row["support"].lstrip(), "question": row["question"]}
    return Example(fields=fields, answer=answer, choices=choices, gold=choices.index(answer))


TASK = Task(
    kind="choice",
    hub="allenai/sciq",
    folder="sciq",
    train="train",
    test="validation",
    sizes={"train": 11_679, "validation": 1_000},
    licence="CC BY-NC 3.0",
    schema={"question": Text, "support": str, **dict.fromkeys(OPTIONS, Text)},
    templates={
        "default": "{support}\nQuestion: {question}\nAnswer: ",
        "io": "{support} {question}",
        "instruct": "Please read the following text: {support} Answer the following question: {question} The answer is ",
    },
    read=read,
)
