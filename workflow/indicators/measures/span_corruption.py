"""Perplexity of masked spans under a causal model (Zeng et al., 2025, PPL-SC; details that the paper leaves open are set here).

The model reads one sequence: the text with a sentinel instead of each span, then every sentinel with its span, then EOS.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.indicators.measuring import LoadedBase, Loss, MeasuredTexts, Measurement, Progress, losses_of, sampled
from workflow.models.encoding import context_length, eos
from workflow.models.engine import losses
from workflow.settings import Indicator
from workflow.training import span_corruption

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VARIANTS = ("spans", "targets")


class StreamWindow(NamedTuple):
    """A piece of the concatenated documents: token ids, and each token's document and bytes."""

    ids: list[int]
    owners: list[int]
    bytes: list[int]


class MaskedWindow(NamedTuple):
    """A window in one draw of the masks."""

    draw: int
    window: StreamWindow
    corrupted: span_corruption.Corrupted


def measure(
    subject: LoadedBase, settings: Indicator, material: MeasuredTexts, progress: Progress | None = None
) -> Measurement:
    """Measure the variants `spans` (tokens of the spans only) and `targets` (sentinels and the last EOS too).

    Documents are concatenated, each followed by EOS, and masked together, as in T5: a text of a few dozen tokens alone would
    have a single span, always at its end. Masks depend on seed and draw, never on the model.
    Errors: StudyError if a masked window is longer than the model's context.
    """
    documents = sampled(material.documents, settings)
    pieces = list(stream(subject.tokenizer, documents, settings["window"]))
    masked = list(_masked(pieces, settings, sentinels(subject.tokenizer, settings["sentinels"])))
    end = eos(subject.tokenizer)
    readings = [_reading(piece.corrupted, end, settings["prefix"]) for piece in masked]
    longest, room = max(len(reading.ids) for reading in readings), context_length(subject.model)
    if longest > room:
        raise StudyError(
            f"a window of {settings['window']} tokens with its sentinels takes {longest}, the model has a context of {room}; "
            "lower `window` of the indicator"
        )
    places = [f"document '{documents[piece.window.owners[0]].id}'" for piece in masked]
    token_losses = losses_of(subject, readings, places, settings["batch_tokens"], progress)
    rows = _losses(settings, documents, masked, token_losses)
    return Measurement(rows, losses.fingerprint(piece.ids for piece in pieces), {"sentinel": span_corruption.word(0)})


def stream(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], size: int) -> Iterator[StreamWindow]:
    """Yield concatenated documents, each followed by EOS, in windows of `size` tokens; a single last token is left out."""
    whole = StreamWindow([], [], [])
    texts = [document.text for document in documents]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    for number, (ids, offsets) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)):
        # Only ends are used: the start of a token may lie after the white space that it stands for.
        ends = [0, *(end for _, end in offsets)]
        sizes = [len(texts[number][before:end].encode()) for before, end in itertools.pairwise(ends)]
        whole.ids.extend([*ids, eos(tokenizer)])
        whole.owners.extend([number] * (len(ids) + 1))
        whole.bytes.extend([*sizes, 0])
    for start in range(0, len(whole.ids) - 1, size):
        window = StreamWindow(*(part[start : start + size] for part in whole))
        if len(window.ids) > 1:
            yield window


def sentinels(tokenizer: PreTrainedTokenizerBase, kind: str) -> Callable[[int], Sequence[int]]:
    """Return a function for a sentinel's token ids: the tokenizer's special token if it has one (kind `own`), else its name."""
    words = kind == "words"

    @functools.cache
    def sentinel(number: int) -> tuple[int, ...]:
        return tuple(
            tokenizer(span_corruption.word(number), add_special_tokens=False, split_special_tokens=words)["input_ids"]
        )

    return sentinel


def _masked(
    pieces: Sequence[StreamWindow], settings: Indicator, sentinel: Callable[[int], Sequence[int]]
) -> Iterator[MaskedWindow]:
    """Yield every window in every draw."""
    for draw in range(settings["draws"]):
        generator = np.random.default_rng([settings["seed"], draw])
        for window in pieces:
            mask = span_corruption.noise_mask(len(window.ids), settings["density"], settings["span"], generator)
            yield MaskedWindow(draw, window, span_corruption.corrupt(window.ids, mask.tolist(), sentinel))


def _reading(corrupted: span_corruption.Corrupted, end: int, prefix: str) -> losses.Reading:
    """Return the sequence for a masked window; its losses begin with the first sentinel of the targets."""
    start = len(corrupted.inputs)
    ids = [*corrupted.inputs, *corrupted.targets, end]
    return losses.Reading(ids, start, start if prefix == "bidirectional" else 0)


def _losses(
    settings: Indicator,
    documents: Sequence[Document],
    masked: Sequence[MaskedWindow],
    token_losses: Sequence[NDArray[np.float64]],
) -> list[Loss]:
    """Return the losses of each document in each draw; a document that a draw leaves unmasked has 0 tokens."""
    # Shape (variants, draws, documents, sums): tokens, bytes, nll.
    totals = np.zeros((len(VARIANTS), settings["draws"], len(documents), 3))
    for (draw, window, corrupted), values in zip(masked, token_losses, strict=True):
        spanned = np.array([*corrupted.spanned, False])
        places = np.array([*corrupted.places, len(window.ids) - 1])
        owners = np.array(window.owners)[places]
        size = np.where(spanned, np.array(window.bytes)[places], 0)
        sums = np.stack([np.ones(len(values)), size, values], axis=1)
        np.add.at(totals[0, draw], owners[spanned], sums[spanned])
        np.add.at(totals[1, draw], owners, sums)
    return [
        Loss(settings["corpus"], document.domain, variant, draw, document.id, int(tokens), int(size), float(nll))
        for variant, of_variant in zip(VARIANTS, totals, strict=True)
        for draw, of_draw in enumerate(of_variant)
        for document, (tokens, size, nll) in zip(documents, of_draw, strict=True)
    ]
