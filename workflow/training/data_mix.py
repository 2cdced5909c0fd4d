"""Which documents a model is trained on, in what shares and order: filters by length, domain tags, data mixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.models.encoding import eos, tokenized

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Encoded(NamedTuple):
    """A document's domain and its token ids, EOS at the end."""

    domain: str
    ids: list[int]


def encode(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], recipe: Mapping[str, Any]
) -> list[Encoded]:
    """The documents that a recipe trains on.

    recipe: length (band of quantiles of the documents' tokens, over all domains; both ends included), tag (whether the
    domain in brackets leads each text, Gao et al.'s metadata conditioning as in Zeng et al., 2025, section 2), mix.
    Errors: StudyError where nothing is left, or a domain of the mix has no document.
    """
    kept = _in_band(tokenizer, documents, recipe["length"]) if "length" in recipe else list(documents)
    mix = recipe.get("mix")
    kept = [document for document in kept if mix is None or mix.get(document.domain, 0) > 0]
    for domain, weight in (mix or {}).items():
        if weight and not any(document.domain == domain for document in kept):
            raise StudyError(f"pretraining/mix: text domain {domain!r} has no document; lower its weight to 0")
    if not kept:
        raise StudyError("pretraining: no document is left to train on")
    texts = [f"[{document.domain}] {document.text}" if recipe.get("tag") else document.text for document in kept]
    found = tokenized(tokenizer, texts)
    return [Encoded(document.domain, [*one.ids, eos(tokenizer)]) for document, one in zip(kept, found, strict=True)]


def _in_band(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], band: Sequence[float]
) -> list[Document]:
    """Documents whose number of tokens lies between two quantiles of all documents' numbers."""
    counts = [len(one.ids) for one in tokenized(tokenizer, [document.text for document in documents])]
    low, high = np.quantile(counts, band)
    return [document for document, count in zip(documents, counts, strict=True) if low <= count <= high]


def order(documents: Sequence[Encoded], mix: Mapping[str, float] | None, generator: torch.Generator) -> Iterator[int]:
    """Endless document numbers: without a mix, all in a new order at every pass; with one, by the domains' weights.

    Each domain then has passes of its own, and the next document is of the domain that lacks most tokens: what has been
    given never leaves the mix by more than a document.
    """
    if mix is None:
        while True:
            yield from torch.randperm(len(documents), generator=generator).tolist()
    shares = {domain: weight / sum(mix.values()) for domain, weight in mix.items() if weight}
    numbers = {
        domain: [place for place, document in enumerate(documents) if document.domain == domain] for domain in shares
    }
    passes = {domain: _passes(own, generator) for domain, own in numbers.items()}
    given = dict.fromkeys(shares, 0)
    while True:
        total = sum(given.values())
        domain = max(shares, key=lambda name: shares[name] * total - given[name])
        number = next(passes[domain])
        given[domain] += len(documents[number].ids)
        yield number


def _passes(numbers: Sequence[int], generator: torch.Generator) -> Iterator[int]:
    """Endless passes over some documents, each in a new order."""
    while True:
        for place in torch.randperm(len(numbers), generator=generator).tolist():
            yield numbers[place]


def stream(documents: Sequence[Encoded], numbers: Iterator[int]) -> Callable[[int], list[int]]:
    """A function that takes the next so many tokens of documents end to end."""
    buffer: list[int] = []

    def take(count: int) -> list[int]:
        while len(buffer) < count:
            buffer.extend(documents[next(numbers)].ids)
        taken = buffer[:count]
        del buffer[:count]
        return taken

    return take
