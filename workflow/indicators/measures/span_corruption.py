"""Perplexity of masked spans, read off a causal model (Zeng et al., 2025, PPL-SC; what the paper leaves open is set here).

The model reads one stream: the text with a sentinel in the place of each span, then every sentinel with its span, then EOS.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.indicators.measuring import Loss, Material, Measurement, Progress, Subject, losses_of, sampled
from workflow.models.encoding import context_length, eos
from workflow.models.engine import losses
from workflow.training import span_corruption

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VARIANTS = ("spans", "targets")


class Window(NamedTuple):
    """A piece of the stream of all documents: token ids, and of each token the document that it is of and its bytes."""

    ids: list[int]
    owners: list[int]
    bytes: list[int]


class Masked(NamedTuple):
    """A window in one draw of the masks."""

    draw: int
    window: Window
    corrupted: span_corruption.Corrupted


def measure(
    subject: Subject, settings: Mapping[str, Any], material: Material, progress: Progress | None = None
) -> Measurement:
    """Variants: `training.span_corruption`, the tokens of the spans alone; `targets`, sentinels and the last EOS as well.

    Documents are masked in one stream, each ended by EOS, as T5 does: a text of a few dozen tokens has a single span by
    itself, and that always at its end. Masks depend on seed and draw, never on the model.
    Errors: StudyError where a masked window is longer than the model's context.
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
    found = losses_of(subject, readings, places, settings["batch_tokens"], progress)
    rows = _losses(settings, documents, masked, found)
    return Measurement(rows, losses.fingerprint(piece.ids for piece in pieces), {"sentinel": span_corruption.word(0)})


def stream(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], size: int) -> Iterator[Window]:
    """Documents end to end, each followed by EOS, in windows of `size` tokens; a single last token is left out."""
    whole = Window([], [], [])
    texts = [document.text for document in documents]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    for number, (ids, offsets) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)):
        # Ends alone: the start of a token may lie behind the white space that it stands for.
        ends = [0, *(end for _, end in offsets)]
        own = [len(texts[number][before:end].encode()) for before, end in itertools.pairwise(ends)]
        whole.ids.extend([*ids, eos(tokenizer)])
        whole.owners.extend([number] * (len(ids) + 1))
        whole.bytes.extend([*own, 0])
    for start in range(0, len(whole.ids) - 1, size):
        window = Window(*(part[start : start + size] for part in whole))
        if len(window.ids) > 1:
            yield window


def sentinels(tokenizer: PreTrainedTokenizerBase, kind: str) -> Callable[[int], Sequence[int]]:
    """Token ids of each sentinel: the tokenizer's own token where it has one (kind `own`), else the words of its name."""
    words = kind == "words"

    @functools.cache
    def sentinel(number: int) -> tuple[int, ...]:
        return tuple(
            tokenizer(span_corruption.word(number), add_special_tokens=False, split_special_tokens=words)["input_ids"]
        )

    return sentinel


def _masked(
    pieces: Sequence[Window], settings: Mapping[str, Any], sentinel: Callable[[int], Sequence[int]]
) -> Iterator[Masked]:
    """Every window in every draw."""
    for draw in range(settings["draws"]):
        generator = np.random.default_rng([settings["seed"], draw])
        for window in pieces:
            mask = span_corruption.noise_mask(len(window.ids), settings["density"], settings["span"], generator)
            yield Masked(draw, window, span_corruption.corrupt(window.ids, mask, sentinel))


def _reading(corrupted: span_corruption.Corrupted, end: int, prefix: str) -> losses.Reading:
    """The sequence that is read of a masked window; its losses begin with the first sentinel of the targets."""
    start = len(corrupted.inputs)
    ids = [*corrupted.inputs, *corrupted.targets, end]
    return losses.Reading(ids, start, start if prefix == "bidirectional" else 0)


def _losses(
    settings: Mapping[str, Any],
    documents: Sequence[Document],
    masked: Sequence[Masked],
    found: Sequence[NDArray[np.float64]],
) -> list[Loss]:
    """The losses of each document in each draw; of a document that a draw leaves unmasked there are no tokens."""
    # Shape (variants, draws, documents, sums): tokens, bytes, nll.
    totals = np.zeros((len(VARIANTS), settings["draws"], len(documents), 3))
    for (draw, window, corrupted), values in zip(masked, found, strict=True):
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
