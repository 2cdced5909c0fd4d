"""From rendered text to token ids: prompt and completion split by offsets, what does not fit cut, rows padded."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from workflow.data import prompts
from workflow.errors import StudyError, shown
from workflow.task import Example, Task, Turn

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MINIMUM_FIELD = 1  # tokens of an input field that are left at least after cutting


class Tokenized(NamedTuple):
    """Token ids of a text, and for each the character of the text at which it ends; 0 for what stands before the text."""

    ids: list[int]
    ends: list[int]


def tokenized(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], **how: Any) -> list[Tokenized]:
    """Texts that may go on: each with the special tokens that the tokenizer puts before a text, and none behind it.

    Some tokenizers end every text with EOS by themselves. A prompt must not end so, since its answer follows, and where a
    text does end the caller adds the EOS. how: further arguments of the tokenizer's call.
    """
    if not texts:
        return []
    lead = leading(tokenizer)
    found = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False, **how)
    return [
        Tokenized([*lead, *ids], [0] * len(lead) + [end for _, end in offsets])
        for ids, offsets in zip(found["input_ids"], found["offset_mapping"], strict=True)
    ]


def leading(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer puts before every text by itself, such as BOS."""
    for text in ("a", "0", "."):  # a normaliser may leave nothing of some text
        found = tokenizer(text, return_special_tokens_mask=True, verbose=False)
        if 0 in found["special_tokens_mask"]:
            return found["input_ids"][: found["special_tokens_mask"].index(0)]
    return []


class Split(NamedTuple):
    """Token ids of a text, parted where its completion begins."""

    prompt: list[int]
    completion: list[int]


def split(tokenizer: PreTrainedTokenizerBase, prompt: str, completions: Sequence[str]) -> list[Split]:
    """Tokens of `prompt + completion` for each completion, tokenised together so that both read as in running text.

    A token that reaches beyond the prompt's last character belongs to the completion. Special tokens are those of
    `tokenized`; a prompt without any token is `opening`.
    """
    return [
        _parted(ids, sum(end <= len(prompt) for end in ends), tokenizer)
        for ids, ends in tokenized(tokenizer, [prompt + text for text in completions])
    ]


def _parted(ids: list[int], cut: int, tokenizer: PreTrainedTokenizerBase) -> Split:
    return Split(ids[:cut] or opening(tokenizer), ids[cut:])


def check_tokens(text: str, completion: Sequence[int]) -> None:
    """StudyError for a completion without tokens, of which no log-probability can be taken.

    A tokenizer may drop whole texts: by its normalisation, or for want of a token for any of their characters.
    """
    if not completion:
        raise StudyError(f"the tokenizer leaves no token of {shown(text)}; expected a text that it keeps")


class Masked(NamedTuple):
    """Token ids of a text and, for each, whether the loss is taken over it; the last one is, unless there are none."""

    ids: list[int]
    scored: list[bool]


def masked(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], room: int) -> Masked:
    """A conversation of which the assistant's words and each EOS after them are scored; nothing where none is left.

    What is too long loses its end, as in the published study, and what follows the last scored token has no part in
    the loss. The newline after an EOS is not scored, since a model that is used stops before it; open-instruct's is.
    """
    eos(tokenizer)  # says so where there is none
    text, spans = prompts.conversation(turns, tokenizer.eos_token)
    # A tokenizer may be set to split special tokens found in a text; here the EOS is one.
    [(ids, ends)] = tokenized(tokenizer, [text], split_special_tokens=False)
    scored = [_overlaps(spans, before, end) for before, end in zip([0, *ends], ends[:room], strict=False)]
    length = max((place for place, counted in enumerate(scored, start=1) if counted), default=0)
    return Masked(ids[:length], scored[:length])


def _overlaps(spans: Sequence[tuple[int, int]], before: int, end: int) -> bool:
    """Whether a token lies in one of the spans, given where the token before it ends and where it ends itself.

    Offsets of byte-level tokenizers leave white space out, so that a token's own start may lie behind what it stands for.
    """
    place = bisect_left(spans, (end,)) - 1  # the last span that starts before the token's end
    return place >= 0 and before < spans[place][1]


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What a text without a prompt follows: BOS, or the EOS of the text before it (as lm-evaluation-harness does)."""
    return [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else eos(tokenizer)]


def eos(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends a text. Errors: StudyError for a tokenizer that has none."""
    if tokenizer.eos_token_id is None:
        raise StudyError(
            f"{tokenizer.name_or_path}: the tokenizer has no EOS to end a text with; expected `eos_token` in "
            "tokenizer_config.json"
        )
    return tokenizer.eos_token_id


def ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end a text that the model writes: the tokenizer's EOS, and those that the checkpoint itself lists.

    Llama 3, for one, lists several (`eos_token_id` of generation_config.json), each of which ends what transformers'
    `generate` writes. A single one that no file of generation settings names is the default of the architecture's class,
    which may be any token of this tokenizer and is left out.
    Errors: StudyError where there is none.
    """
    settings, rows = model.generation_config, model.config.get_text_config().vocab_size
    listed = settings.eos_token_id
    if not isinstance(listed, list):
        listed = [] if settings._from_model_config else [listed]
    known = [token for token in (tokenizer.eos_token_id, *listed) if token is not None and token < rows]
    return list(dict.fromkeys(known)) or [eos(tokenizer)]


@dataclass(frozen=True)
class Framing:
    """How the examples of one test are put to a model: template, protocol, demonstrations, room in tokens."""

    task: Task
    format: str
    protocol: str
    demonstrations: tuple[Example, ...]
    room: int | None


class Prompt(NamedTuple):
    """A prompt that fits: its text, its token ids, demonstrations kept, whether a field was cut, tokens lost at the beginning
    (of demonstrations and fields together)."""

    text: str
    ids: list[int]
    shots: int
    truncated: bool
    cut_tokens: int = 0


def fitted(tokenizer: PreTrainedTokenizerBase, framing: Framing, example: Example) -> Prompt:
    """The example's prompt within the framing's room.

    What is too long loses its demonstrations, oldest first, then the beginning of its longest fields: never the
    instruction, never the cue for the answer. Room None (the published protocol) cuts nothing.
    Errors: StudyError when the template alone is longer than the room.
    """
    shown = [_solved(framing, demonstration) for demonstration in framing.demonstrations]
    query = prompts.prompt(framing.task, example.fields, framing.format, framing.protocol)
    ids = _ids(tokenizer, "".join(shown) + query)
    whole = len(ids)
    while framing.room is not None and len(ids) > framing.room and shown:
        shown.pop(0)
        ids = _ids(tokenizer, "".join(shown) + query)
    if framing.room is None or len(ids) <= framing.room:
        return Prompt("".join(shown) + query, ids, len(shown), truncated=False, cut_tokens=whole - len(ids))
    query, _ = cut(tokenizer, framing, example)
    ids = _ids(tokenizer, query)
    return Prompt(query, ids, 0, truncated=True, cut_tokens=whole - len(ids))


def cut(tokenizer: PreTrainedTokenizerBase, framing: Framing, example: Example) -> tuple[str, int]:
    """The prompt, and its tokens, with no more missing from the start of its longest field than the room demands.

    Where that does not do, the next longest is cut as well, so that those which are cut keep equally many tokens.
    """
    names = prompts.field_names(prompts.template(framing.task, framing.format))
    tokens = {
        name: tokenizer(example.fields[name], add_special_tokens=False, return_offsets_mapping=True) for name in names
    }
    starts = {name: [start for start, _ in tokens[name]["offset_mapping"]] for name in names}
    kept = max(map(len, starts.values()))
    while kept >= MINIMUM_FIELD:
        shortened = {name: example.fields[name][starts[name][-kept] :] for name in names if len(starts[name]) > kept}
        query = prompts.prompt(framing.task, {**example.fields, **shortened}, framing.format, framing.protocol)
        # Tokens at the seams may merge differently once a field is cut, so the count is taken again.
        length = len(_ids(tokenizer, query))
        if length <= framing.room:
            return query, length
        kept -= max(1, (length - framing.room) // len(names))
    raise StudyError(
        f"format '{framing.format}' needs more than the {framing.room} tokens that the model's context leaves for a prompt"
    )


def _solved(framing: Framing, example: Example) -> str:
    return prompts.demonstration(framing.task, example, framing.format, framing.protocol)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenized(tokenizer, [text])[0].ids


def padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills padded places, masked wherever it stands: the tokenizer's own, else its EOS, else any."""
    return next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)


def context_length(model: PreTrainedModel) -> int:
    """Positions the model was made for; of one that counts none, such as a recurrent one, no end of them."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or sys.maxsize)


def left_padded(sequences: Sequence[Sequence[int]], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Rows of different length as model inputs of shape (rows, longest), padded on the left.

    Last tokens stand in one column, so the logits that are read are a slice; positions count from each row's own start.
    """
    import torch

    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(sequences), longest), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, longest - len(sequence) :] = torch.tensor(sequence, dtype=torch.long)
        mask[row, longest - len(sequence) :] = 1
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Row numbers in batches of similar length, longest first, each within `tokens` after padding (or a single row)."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    result: list[list[int]] = []
    for row in order:
        if result and (len(result[-1]) + 1) * lengths[result[-1][0]] <= tokens:
            result[-1].append(row)
        else:
            result.append([row])
    return result
