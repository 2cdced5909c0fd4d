"""Contexts and continuations of lm-evaluation-harness as token ids: tokenized, split and cut as the harness does.

Source: lm_eval 0.4.13, `TemplateLM.loglikelihood` and `_encode_pair`, `HFLM.tok_encode`, `_loglikelihood_tokens` and
`generate_until`. Unlike `models.encoding`, a token that spans the end of the context stays with the context, and a context that
is too long loses its first tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from workflow.data import lm_eval_tasks
from workflow.data.lm_eval_tasks import HarnessTask
from workflow.errors import StudyError, shown
from workflow.models.encoding import opening
from workflow.task import Example, Rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LENGTHS = (
    "n_positions",
    "max_position_embeddings",
    "n_ctx",
)  # keys of a model's config for its context, in the harness's order
UNSTATED = 2048  # tokens, where neither model nor tokenizer states a length
UNLIMITED = 10**18  # a tokenizer's length from here on says that there is no limit


class EncodedPair(NamedTuple):
    """Token ids of a context and its continuation, and the number of tokens that the context lost at its start."""

    context: list[int]
    continuation: list[int]
    cut: int


def max_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the longest input of a model in tokens, as the harness finds it."""
    for config in (model.config.get_text_config(), model.config):
        for key in LENGTHS:
            if length := getattr(config, key, None):
                return int(length)
    length = tokenizer.model_max_length
    return int(length) if length and length < UNLIMITED else UNSTATED


def encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a text with the tokenizer's special tokens, but not with a second BOS."""
    begun = text.startswith(str(tokenizer.decode(opening(tokenizer))))
    return tokenizer(text, add_special_tokens=not begun, verbose=False)["input_ids"]


def pair(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Return the token ids of a context and of the continuation after it; white space between them is the continuation's."""
    if not context:
        start, ids = opening(tokenizer), tokenizer(continuation, add_special_tokens=False, verbose=False)["input_ids"]
        return (start, ids) if ids[:1] != start else (ids[:1], ids[1:])
    bare = context.rstrip()
    ids = encoded(tokenizer, bare)
    return ids, encoded(tokenizer, context + continuation)[len(ids) :]


def request(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str, length: int) -> EncodedPair:
    """Return a request whose input, all tokens but the last, has at most `length` tokens.

    Errors: StudyError for a continuation without tokens, or one that is longer than that.
    """
    before, after = pair(tokenizer, context, continuation)
    if not 0 < len(after) <= length:
        raise StudyError(f"{shown(continuation)} has {len(after)} tokens; expected 1 to {length}, the model's context")
    cut = max(0, len(before) + len(after) - (length + 1))
    return EncodedPair(before[cut:] or opening(tokenizer), after, cut)


def contexts(harness: HarnessTask, example: Example, before: Rows) -> list[str]:
    """Return the context of a row, one for each choice where the choices are contexts themselves. before: few-shot examples."""
    start = example.fields["description"] + "".join(lm_eval_tasks.demonstration(*row) for row in before)
    several = "inputs" in example.fields
    return [start + text for text in (example.choices if several else (example.fields["query"],))]


def continuations(example: Example) -> list[str]:
    """Return what is scored after the context: each choice, or the one continuation of choices that are contexts."""
    answer = example.fields["answer"]
    if "inputs" in example.fields:
        return [answer]
    delimiter = answer.removesuffix(example.answer)
    return [delimiter + choice for choice in example.choices]


def choices(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], example: Example, length: int
) -> list[EncodedPair]:
    """Return the request of each choice of a row after its contexts, as `contexts` gives them."""
    pairs = [(context, continuation) for context in texts for continuation in continuations(example)]
    return [request(tokenizer, *texts, length) for texts in pairs]


def unconditional(tokenizer: PreTrainedTokenizerBase, example: Example, length: int) -> list[EncodedPair]:
    """Return the request of each choice without a context."""
    delimiter = example.fields["answer"].removesuffix(example.answer) if "inputs" not in example.fields else ""
    return [request(tokenizer, "", delimiter + choice, length) for choice in example.choices]


def prompt(tokenizer: PreTrainedTokenizerBase, context: str, room: int) -> EncodedPair:
    """Return the context of generated text, whose last `room` tokens are read.

    Errors: StudyError where the generated text leaves no room.
    """
    if room < 1:
        raise StudyError(f"max_gen_toks leaves {room} tokens of the model's context for a prompt; expected 1 or more")
    ids = encoded(tokenizer, context) or opening(tokenizer)
    return EncodedPair(ids[-room:], [], max(0, len(ids) - room))
