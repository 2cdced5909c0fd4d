"""Prompts in a checkpoint's own chat template: few-shot examples are earlier turns, the row is the user's last one.

The template is that of the tokenizer (`apply_chat_template` of transformers, a sandboxed Jinja template). The text of a template
holds all special tokens, so none are added when it is tokenized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workflow.data import prompts
from workflow.errors import StudyError, first_line
from workflow.task import Example, Task, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = "chat"
ANSWERED = "yes"  # an answer to see how a template ends one


def messages(
    task: Task, system: str | None, shown: Sequence[Example], fields: Mapping[str, str] | None
) -> list[dict[str, str]]:
    """Return a conversation: the system message if there is one, few-shot examples, and the row's question."""
    turns = [{"role": "system", "content": system}] if system else []
    for example in shown:
        turns.append({"role": "user", "content": prompts.prompt(task, example.fields, FORMAT)})
        turns.append({"role": "assistant", "content": example.lead + example.answer})
    return turns + ([{"role": "user", "content": prompts.prompt(task, fields, FORMAT)}] if fields is not None else [])


def rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, str]], answer: bool) -> str:
    """Return a conversation as text; answer: whether the beginning of the assistant's turn is added.

    Errors: StudyError for a tokenizer without a template, and for a template that refuses the conversation.
    """
    if not tokenizer.chat_template:
        raise StudyError(
            f"{tokenizer.name_or_path}: the checkpoint has no chat template, which format 'chat' needs; expected "
            "chat_template.jinja, or `chat_template` in tokenizer_config.json"
        )
    try:
        said = [dict(turn) for turn in turns]
        return str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=answer))
    except Exception as error:  # whatever the template raises
        roles = ", ".join(turn["role"] for turn in turns)
        raise StudyError(
            f"{tokenizer.name_or_path}: the chat template refuses the turns {roles}: {first_line(error)}"
        ) from error


def prompt(
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    system: str | None,
    shown: Sequence[Example],
    fields: Mapping[str, str],
) -> str:
    """Return the text up to the assistant's answer."""
    return rendered(tokenizer, messages(task, system, shown, fields), answer=True)


def completion(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, str]], answer: str) -> str:
    """Return what the template writes after the prompt of a conversation for an answer: the answer and the end of its turn.

    White space after the end of the turn is left out. Errors: StudyError where the template writes the turns before an answer
    differently.
    """
    before = rendered(tokenizer, turns, answer=True)
    whole = rendered(tokenizer, [*turns, {"role": "assistant", "content": answer}], answer=False)
    if not whole.startswith(before):
        raise StudyError(
            f"{tokenizer.name_or_path}: the chat template writes the turns before an answer differently once it is there; "
            "expected one that only adds to them"
        )
    return whole[len(before) :].rstrip()


def end(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the id of the token that ends the assistant's turn; empty where the template adds none after an answer."""
    turn = completion(tokenizer, [{"role": "user", "content": ANSWERED}], ANSWERED)
    _, _, marker = turn.rpartition(ANSWERED)
    ids = tokenizer(marker, add_special_tokens=False, split_special_tokens=False)["input_ids"] if marker else []
    return ids[:1]


def conversation(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> tuple[str, list[tuple[int, int]]]:
    """Return a conversation as text, and the assistant's turns with their ends as (start, stop)."""
    said: list[dict[str, Any]] = [turn._asdict() for turn in turns]
    spans = []
    for number, turn in enumerate(turns):
        if turn.role == "assistant":
            before = rendered(tokenizer, said[:number], answer=True)
            spans.append((len(before), len(before) + len(completion(tokenizer, said[:number], turn.content))))
    return rendered(tokenizer, said, answer=False), spans
