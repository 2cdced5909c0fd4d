"""From rendered text to token ids: split prompt and completion by offsets, cut prompts that are too long, pad rows."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from workflow.data import prompts
from workflow.errors import StudyError, shown
from workflow.models import chat
from workflow.task import Example, Task, Turn

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MINIMUM_FIELD = 1  # fewest tokens of an input field after cutting


class Tokenized(NamedTuple):
    """Token ids of a text, and the character at which each token ends; 0 for special tokens before the text."""

    ids: list[int]
    ends: list[int]


def tokenized(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], templated: bool = False, **arguments: Any
) -> list[Tokenized]:
    """Tokenize texts with the special tokens that the tokenizer puts before a text, but none after it.

    Some tokenizers append EOS to every text. A prompt must not have it, since the answer follows; where a text ends, the
    caller adds the EOS. templated: whether the texts are of a chat template, which holds all special tokens as text; arguments:
    further arguments of the tokenizer's call.
    """
    if not texts:
        return []
    lead = [] if templated else leading(tokenizer)
    arguments |= {"split_special_tokens": False} if templated else {}
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False, **arguments)
    return [
        Tokenized([*lead, *ids], [0] * len(lead) + [end for _, end in offsets])
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]


def leading(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the special tokens that the tokenizer puts before every text, such as BOS."""
    for text in ("a", "0", "."):  # a normaliser may delete some texts completely
        encoded = tokenizer(text, return_special_tokens_mask=True, verbose=False)
        if 0 in encoded["special_tokens_mask"]:
            return encoded["input_ids"][: encoded["special_tokens_mask"].index(0)]
    return []


class Split(NamedTuple):
    """Token ids of a text, split where its completion begins."""

    prompt: list[int]
    completion: list[int]


def split(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completions: Sequence[str], templated: bool = False
) -> list[Split]:
    """Tokenize `prompt + completion` for each completion as one text, and split the tokens at the prompt's end.

    A token that reaches beyond the prompt's last character belongs to the completion. Special tokens are those of
    `tokenized`; a prompt without any token becomes `opening`.
    """
    return [
        _parted(ids, sum(end <= len(prompt) for end in ends), tokenizer)
        for ids, ends in tokenized(tokenizer, [prompt + text for text in completions], templated)
    ]


def _parted(ids: list[int], cut: int, tokenizer: PreTrainedTokenizerBase) -> Split:
    return Split(ids[:cut] or opening(tokenizer), ids[cut:])


def check_tokens(text: str, completion: Sequence[int]) -> None:
    """Raise StudyError for a completion without tokens, which has no log-probability.

    A tokenizer may drop whole texts: by its normalisation, or because it has no token for any of their characters.
    """
    if not completion:
        raise StudyError(f"the tokenizer turns {shown(text)} into no token at all; expected a text with tokens")


class Masked(NamedTuple):
    """Token ids of a text, and whether the loss includes each; it includes the last one, unless there are none."""

    ids: list[int]
    scored: list[bool]


def masked(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], room: int, format: str = "default") -> Masked:
    """Encode a conversation; the assistant's turns and the EOS after each are scored. Empty if no scored token is left.

    A conversation that is too long loses its end, as in the published study; tokens after the last scored one are dropped.
    The newline after an EOS is not scored, since generation stops before it (open-instruct scores it).
    """
    eos(tokenizer)  # raises if there is none
    templated = format == chat.FORMAT
    text, spans = chat.conversation(tokenizer, turns) if templated else prompts.conversation(turns, tokenizer.eos_token)
    # A tokenizer may be set to split special tokens found in a text; here the EOS is one.
    [(ids, ends)] = tokenized(tokenizer, [text], templated, split_special_tokens=False)
    scored = [_overlaps(spans, before, end) for before, end in zip([0, *ends], ends[:room], strict=False)]
    length = max((position for position, counted in enumerate(scored, start=1) if counted), default=0)
    return Masked(ids[:length], scored[:length])


def _overlaps(spans: Sequence[tuple[int, int]], before: int, end: int) -> bool:
    """Return whether a token overlaps one of the spans. before: end of the token before it; end: its end.

    Offsets of byte-level tokenizers leave out white space, so a token's start may lie after the text that it stands for.
    """
    span = bisect_left(spans, (end,)) - 1  # the last span that starts before the token's end
    return span >= 0 and before < spans[span][1]


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the context of a text without a prompt: BOS, or the EOS of a text before it (as lm-evaluation-harness does)."""
    return [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else eos(tokenizer)]


def eos(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the EOS token. Errors: StudyError for a tokenizer without one."""
    if tokenizer.eos_token_id is None:
        raise StudyError(
            f"{tokenizer.name_or_path}: the tokenizer has no EOS to end a text with; expected `eos_token` in "
            "tokenizer_config.json"
        )
    return tokenizer.eos_token_id


def ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that end generated text: the tokenizer's EOS, and those that the checkpoint lists.

    Llama 3, for example, lists several (`eos_token_id` of generation_config.json), and transformers' `generate` stops at
    each. A single id that no generation_config.json names is the default of the architecture's class; it may be any token
    of this tokenizer and is left out.
    Errors: StudyError if there is none.
    """
    settings, rows = model.generation_config, model.config.get_text_config().vocab_size
    listed = settings.eos_token_id
    if not isinstance(listed, list):
        listed = [] if settings._from_model_config else [listed]
    known = [token for token in (tokenizer.eos_token_id, *listed) if token is not None and token < rows]
    return list(dict.fromkeys(known)) or [eos(tokenizer)]


@dataclass(frozen=True)
class Framing:
    """The form of a test's prompts: template format, protocol, few-shot examples, room in tokens (None: no limit), and the system
    message of format `chat`."""

    task: Task
    format: str
    protocol: str
    demonstrations: tuple[Example, ...]
    room: int | None
    system: str | None = None

    @property
    def templated(self) -> bool:
        """Whether prompts are in the checkpoint's chat template."""
        return self.format == chat.FORMAT

    @property
    def limit(self) -> int:
        """Most tokens of a prompt; `sys.maxsize` where the room has no end."""
        return sys.maxsize if self.room is None else self.room


class Prompt(NamedTuple):
    """A prompt that fits: text, token ids, number of few-shot examples kept, whether a field was cut, number of tokens cut
    (of few-shot examples and fields together)."""

    text: str
    ids: list[int]
    shots: int
    truncated: bool
    cut_tokens: int = 0


def fitted(tokenizer: PreTrainedTokenizerBase, framing: Framing, example: Example) -> Prompt:
    """Return the example's prompt, cut to the framing's room.

    A prompt that is too long loses its few-shot examples, the first ones first, then the beginning of its longest fields,
    but never the instruction or the cue for the answer. Room None (the published protocol) cuts nothing.
    Errors: StudyError if the template alone is longer than the room.
    """
    shown = list(framing.demonstrations)
    text = rendered(tokenizer, framing, shown, example.fields)
    ids = _ids(tokenizer, framing, text)
    whole = len(ids)
    while len(ids) > framing.limit and shown:
        shown.pop(0)
        text = rendered(tokenizer, framing, shown, example.fields)
        ids = _ids(tokenizer, framing, text)
    if len(ids) <= framing.limit:
        return Prompt(text, ids, len(shown), truncated=False, cut_tokens=whole - len(ids))
    query, _ = cut(tokenizer, framing, example)
    ids = _ids(tokenizer, framing, query)
    return Prompt(query, ids, 0, truncated=True, cut_tokens=whole - len(ids))


def cut(tokenizer: PreTrainedTokenizerBase, framing: Framing, example: Example) -> tuple[str, int]:
    """Return the prompt, and its number of tokens, with the start of its longest field cut as little as possible.

    If that is not enough, the next longest field is cut too, so that all fields that are cut keep equally many tokens.
    """
    names = prompts.field_names(prompts.template(framing.task, framing.format))
    tokens = {
        name: tokenizer(example.fields[name], add_special_tokens=False, return_offsets_mapping=True) for name in names
    }
    starts = {name: [start for start, _ in tokens[name]["offset_mapping"]] for name in names}
    kept = max(map(len, starts.values()))
    while kept >= MINIMUM_FIELD:
        shortened = {name: example.fields[name][starts[name][-kept] :] for name in names if len(starts[name]) > kept}
        query = rendered(tokenizer, framing, (), {**example.fields, **shortened})
        # Tokens may merge differently where a field is cut, so the prompt is tokenized again.
        length = len(_ids(tokenizer, framing, query))
        if length <= framing.limit:
            return query, length
        kept -= max(1, (length - framing.limit) // len(names))
    raise StudyError(
        f"format '{framing.format}' needs more than the {framing.room} tokens that the model's context leaves for a prompt"
    )


def rendered(
    tokenizer: PreTrainedTokenizerBase, framing: Framing, shown: Sequence[Example], fields: Mapping[str, str]
) -> str:
    """Return the text of a prompt after few-shot examples."""
    if framing.templated:
        return chat.prompt(tokenizer, framing.task, framing.system, shown, fields)
    solved = (prompts.demonstration(framing.task, example, framing.format, framing.protocol) for example in shown)
    return "".join(solved) + prompts.prompt(framing.task, fields, framing.format, framing.protocol)


def _ids(tokenizer: PreTrainedTokenizerBase, framing: Framing, text: str) -> list[int]:
    return tokenized(tokenizer, [text], framing.templated)[0].ids


def padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the padding id: the tokenizer's, else its EOS, else any, since padding is always masked."""
    return next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)


def context_length(model: PreTrainedModel) -> int:
    """Return the model's number of positions; `sys.maxsize` for a model without positions, such as a recurrent one."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or sys.maxsize)


def left_padded(sequences: Sequence[Sequence[int]], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Return rows of different lengths as model inputs of shape (rows, longest), padded on the left.

    The last tokens are in one column, so the logits needed are a slice. Positions count from the start of each row.
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
    """Return row numbers in batches of similar length, longest first, each at most `tokens` after padding (or a single row)."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    result: list[list[int]] = []
    for row in order:
        if result and (len(result[-1]) + 1) * lengths[result[-1][0]] <= tokens:
            result[-1].append(row)
        else:
            result.append([row])
    return result
