"""Perplexity of text: the loss of each token given those before it in its window (Zeng et al., 2025, PPL-CLM)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from workflow.data.corpora import Document
from workflow.indicators.measuring import LoadedBase, Loss, MeasuredTexts, Measurement, Progress, losses_of, sampled
from workflow.models.encoding import context_length, tokenized
from workflow.models.engine import losses
from workflow.settings import Indicator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextWindow(NamedTuple):
    """A piece of a document: the document's index, its token ids, the bytes of all tokens but the first."""

    document: int
    ids: list[int]
    bytes: int


def measure(
    subject: LoadedBase, settings: Indicator, material: MeasuredTexts, progress: Progress | None = None
) -> Measurement:
    """Measure the variant `text`: consecutive windows, the first token of each without a loss."""
    documents, pieces, size = cut(subject, settings, material)
    measured = text_losses(subject, settings, documents, pieces, progress)
    return Measurement(
        [row._replace(variant="text") for row in measured],
        losses.fingerprint(piece.ids for piece in pieces),
        {"window": size},
    )


def cut(
    subject: LoadedBase, settings: Indicator, material: MeasuredTexts
) -> tuple[Sequence[Document], list[TextWindow], int]:
    """Return the documents, all their windows, and the most tokens of a window: as set, at most the model's context."""
    documents = sampled(material.documents, settings)
    size = min(settings["window"], context_length(subject.model))
    return documents, list(windows(subject.tokenizer, documents, size)), size


def windows(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], size: int) -> Iterator[TextWindow]:
    """Yield tokenized documents in windows of at most `size` tokens; windows of a single token are left out."""
    for number, (ids, last) in enumerate(tokenized(tokenizer, [document.text for document in documents])):
        ends = list(itertools.accumulate(last, max))
        for start in range(0, len(ids), size):
            stop = min(start + size, len(ids))
            if stop - start > 1:
                # Only ends are used: the start of a token may lie after the white space that it stands for.
                scored = documents[number].text[ends[start] : ends[stop - 1]]
                yield TextWindow(number, ids[start:stop], len(scored.encode()))


def text_losses(
    subject: LoadedBase,
    settings: Indicator,
    documents: Sequence[Document],
    pieces: Sequence[TextWindow],
    progress: Progress | None = None,
) -> list[Loss]:
    """Return the loss of each document over all its windows; variant is empty, draw is 0."""
    readings = [losses.Reading(piece.ids) for piece in pieces]
    places = [f"document '{documents[piece.document].id}'" for piece in pieces]
    read = losses_of(subject, readings, places, settings["batch_tokens"], progress)
    totals: dict[int, Loss] = {}
    for piece, values in zip(pieces, read, strict=True):
        document = documents[piece.document]
        before = totals.get(piece.document) or Loss(
            settings["corpus"], document.domain, "", 0, document.id, tokens=0, bytes=0, nll=0.0
        )
        totals[piece.document] = before._replace(
            tokens=before.tokens + len(values), bytes=before.bytes + piece.bytes, nll=before.nll + float(values.sum())
        )
    return list(totals.values())
