"""Tülu v2: instructions and conversations to tune on, from a dozen sources (Ivison et al., 2023). Licence: ODC-BY.

A conversation has a form of its own (`prompts.conversation`) and is never a test. Models tuned on it have the format
`default` all the same: the form belongs to the dataset, it is not one of the formats that are compared.
"""

from workflow.task import ROLES, Example, FieldError, Row, Task, Turn


def read(row: Row) -> Example:
    """The turns as they stand, without the white space around them (as in open-instruct, whose form is followed)."""
    if not row["messages"]:
        raise FieldError("messages", row["messages"], "at least one message")
    for number, message in enumerate(row["messages"]):
        if message["role"] not in ROLES:
            raise FieldError(f"messages[{number}].role", message["role"], "one of " + ", ".join(map(repr, ROLES)))
    turns = tuple(Turn(message["role"], message["content"].strip()) for message in row["messages"])
    return Example(fields={}, answer="", turns=turns)


TASK = Task(
    kind="messages",
    hub="allenai/tulu-v2-sft-mixture",
    folder="tulu_messages",
    train="train",
    test=None,
    sizes={"train": 326_154},
    licence="ODC-BY, parts on their own terms",
    schema={"messages": [{"role": str, "content": str}]},
    read=read,
)
