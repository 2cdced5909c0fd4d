"""WinoGrande: which of two names a blank stands for (Sakaguchi et al., 2021), by partial evaluation.

The options are short and differ, the text after the blank is long and the same: so an option is read as a lead and what
follows the blank is scored (Trinh & Le, 2018; lm-evaluation-harness does the same). The prompt is the text before the blank
and ends in a space in every format, since the sentence goes on.
"""

from workflow.task import Example, FieldError, Row, Task, Text, one_of

BLANK = "_"


def read(row: Row) -> Example:
    """Text before the blank as prompt, each option as a lead, the text after the blank as the choice of both.

    What touches the blank from the left, such as an opening quotation mark, goes with the option; what touches it from
    the right, such as 's, keeps doing so; a slip of two spaces at the blank is read as one.
    """
    if row["sentence"].count(BLANK) != 1:
        raise FieldError("sentence", row["sentence"], f"a sentence with one blank '{BLANK}'")
    before, after = row["sentence"].split(BLANK)
    if not after.strip():
        raise FieldError("sentence", row["sentence"], f"text after the blank '{BLANK}'")
    beginning, _, touching = before.rpartition(" ")
    rest = (" " if after[0].isspace() else "") + after.strip()
    leads = (touching + row["option1"], touching + row["option2"])
    gold = int(one_of(row, "answer", "12")) - 1
    return Example(fields={"beginning": beginning.rstrip()}, answer=rest, choices=(rest, rest), gold=gold, leads=leads)


TASK = Task(
    kind="choice",
    hub="allenai/winogrande",
    subset="winogrande_xl",
    train="train",
    test="validation",
    sizes={"train": 40_398, "validation": 1_267},
    licence="none stated",
    schema={"sentence": Text, "option1": Text, "option2": Text, "answer": str},
    templates={
        "default": "{beginning} ",
        "io": "{beginning} ",
        "instruct": "Please complete the following sentence: {beginning} ",
    },
    read=read,
)
