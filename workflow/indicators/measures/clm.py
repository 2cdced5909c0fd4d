"""Perplexity of running text: the loss of each token given those before it in its window (Zeng et al., 2025, PPL-CLM)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from workflow.data.corpora import Document
from workflow.indicators.measuring import Loss, Material, Measurement, Progress, Subject, losses_of, sampled
from workflow.models.encoding import context_length, tokenized
from workflow.models.engine import losses

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Window(NamedTuple):
    """A piece of a document: its place among the documents, its token ids, the bytes of all tokens but the first."""

    document: int
    ids: list[int]
    bytes: int


def measure(
    subject: Subject, settings: Mapping[str, Any], material: Material, progress: Progress | None = None
) -> Measurement:
    """Variant `text`: windows one after the other, the first token of each without a loss."""
    documents, pieces, size = cut(subject, settings, material)
    found = text_losses(subject, settings, documents, pieces, progress)
    return Measurement(
        [row._replace(variant="text") for row in found],
        losses.fingerprint(piece.ids for piece in pieces),
        {"window": size},
    )


def cut(
    subject: Subject, settings: Mapping[str, Any], material: Material
) -> tuple[Sequence[Document], list[Window], int]:
    """The documents that are measured, all their windows, and a window's most tokens: as set, or the model's context."""
    documents = sampled(material.documents, settings)
    size = min(settings["window"], context_length(subject.model))
    return documents, list(windows(subject.tokenizer, documents, size)), size


def windows(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], size: int) -> Iterator[Window]:
    """Documents, tokenized as `encoding.tokenized` does, in windows of at most `size` tokens; single tokens left out."""
    for number, (ids, last) in enumerate(tokenized(tokenizer, [document.text for document in documents])):
        ends = list(itertools.accumulate(last, max))
        for start in range(0, len(ids), size):
            stop = min(start + size, len(ids))
            if stop - start > 1:
                # Ends alone: the start of a token may lie behind the white space that it stands for.
                scored = documents[number].text[ends[start] : ends[stop - 1]]
                yield Window(number, ids[start:stop], len(scored.encode()))


def text_losses(
    subject: Subject,
    settings: Mapping[str, Any],
    documents: Sequence[Document],
    pieces: Sequence[Window],
    progress: Progress | None = None,
) -> list[Loss]:
    """The loss of each document, all of its windows together; variant is left blank, draw is 0."""
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
