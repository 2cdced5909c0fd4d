"""The documents of pre-training, their shares and order: length filters, domain tags, data mixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.models.encoding import eos, tokenized
from workflow.settings import Pretraining

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Encoded(NamedTuple):
    """A document's domain and its token ids, with EOS at the end."""

    domain: str
    ids: list[int]


def encode(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], recipe: Pretraining) -> list[Encoded]:
    """Return the documents that a recipe trains on.

    recipe: length (two quantiles of the documents' token counts, over all domains; documents between them, both included, are
    kept), tag (whether the domain in brackets precedes each text, Gao et al.'s metadata conditioning as in Zeng et al., 2025,
    section 2), mix.
    Errors: StudyError if no document is left, or a domain of the mix has none.
    """
    kept = _in_band(tokenizer, documents, recipe["length"]) if "length" in recipe else list(documents)
    mix = recipe.get("mix")
    kept = [document for document in kept if mix is None or mix.get(document.domain, 0) > 0]
    for domain, weight in (mix or {}).items():
        if weight and not any(document.domain == domain for document in kept):
            raise StudyError(f"pretraining/mix: text domain {domain!r} has no document; set its weight to 0")
    if not kept:
        raise StudyError("pretraining: no document is left to train on")
    texts = [f"[{document.domain}] {document.text}" if recipe.get("tag") else document.text for document in kept]
    encoded = tokenized(tokenizer, texts)
    return [Encoded(document.domain, [*one.ids, eos(tokenizer)]) for document, one in zip(kept, encoded, strict=True)]


def _in_band(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], band: Sequence[float]
) -> list[Document]:
    """Return the documents whose token count lies between two quantiles of all token counts."""
    counts = [len(one.ids) for one in tokenized(tokenizer, [document.text for document in documents])]
    low, high = np.quantile(counts, band)
    return [document for document, count in zip(documents, counts, strict=True) if low <= count <= high]


def order(documents: Sequence[Encoded], mix: Mapping[str, float] | None, generator: torch.Generator) -> Iterator[int]:
    """Yield document numbers without end: without a mix, all in a new order in each pass; with one, by the domains' weights.

    With a mix, each domain has separate passes, and the next document is from the domain that lacks most tokens, so that the
    shares never differ from the mix by more than a document.
    """
    if mix is None:
        while True:
            yield from torch.randperm(len(documents), generator=generator).tolist()
    shares = {domain: weight / sum(mix.values()) for domain, weight in mix.items() if weight}
    numbers = {
        domain: [index for index, document in enumerate(documents) if document.domain == domain] for domain in shares
    }
    passes = {domain: _passes(indices, generator) for domain, indices in numbers.items()}
    tokens = dict.fromkeys(shares, 0)
    while True:
        total = sum(tokens.values())
        domain = max(shares, key=lambda name: shares[name] * total - tokens[name])
        number = next(passes[domain])
        tokens[domain] += len(documents[number].ids)
        yield number


def _passes(numbers: Sequence[int], generator: torch.Generator) -> Iterator[int]:
    """Yield documents in endless passes, each in a new order."""
    while True:
        for index in torch.randperm(len(numbers), generator=generator).tolist():
            yield numbers[index]


def stream(documents: Sequence[Encoded], numbers: Iterator[int]) -> Callable[[int], list[int]]:
    """Return a function that returns the next `count` tokens of the concatenated documents."""
    buffer: list[int] = []

    def take(count: int) -> list[int]:
        while len(buffer) < count:
            buffer.extend(documents[next(numbers)].ids)
        taken = buffer[:count]
        del buffer[:count]
        return taken

    return take
