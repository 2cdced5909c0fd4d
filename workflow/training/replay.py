"""Rows of pre-training text among the rows of a fine-tuning, against forgetting (Bethune et al., 2025, arXiv 2502.06042)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from workflow.data import corpora
from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.models.encoding import Masked, eos, tokenized
from workflow.settings import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def parted(recipe: Recipe) -> tuple[Recipe, dict[str, Any] | None]:
    """Return a recipe as the study has it, and the text that it replays (key `replayed`), if any."""
    settings = dict(cast(Mapping[str, Any], recipe))
    text = settings.pop("replayed", None)
    return cast(Recipe, settings), text


def documents(text: Mapping[str, Any], data_root: str | None) -> list[Document]:
    """Return the documents of a text, as `grid.replayed_text` returns it."""
    root = corpora.folder(text, data_root, "recipes/replay_text/corpus")
    return list(corpora.documents(corpora.files(root, text.get("domains"), text["split"])))


def number(examples: int, recipe: Recipe) -> int:
    """Return the rows of text in an epoch: at least one, and as many as make their share of all rows `replay`."""
    share = recipe["replay"]
    return max(1, round(examples * share / (1 - share)))


def counts(total: int, recipe: Recipe) -> tuple[int, int]:
    """Return the examples and the rows of text in an epoch. total: examples, and rows of text of all epochs."""
    if "replay" not in recipe:
        return total, 0
    # The total rises with the number of examples, so it has one solution.
    fits = (n for n in range(1, total) if n + recipe["epochs"] * number(n, recipe) == total)
    examples = next(fits)
    return examples, number(examples, recipe)


def rows(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Document], examples: int, context: int, recipe: Recipe
) -> list[Masked]:
    """Return the rows of text of all epochs: consecutive pieces of documents in an order drawn by `sample_seed`.

    A piece has `max_tokens` tokens, at most the model's context; documents follow each other with EOS between them, as in
    pre-training. All tokens but the first are scored. Errors: StudyError if the text is empty.
    """
    size = min(recipe["max_tokens"], context)
    if size < 2:
        raise StudyError("recipes/replay: needs rows of two tokens or more; raise max_tokens")
    stream = _tokens(tokenizer, texts, recipe["sample_seed"])
    pieces = [[next(stream) for _ in range(size)] for _ in range(recipe["epochs"] * number(examples, recipe))]
    return [Masked(piece, [False, *[True] * (size - 1)]) for piece in pieces]


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Document], seed: int) -> Iterator[int]:
    """Yield the tokens of documents without end, in a new order in each pass; a document is tokenized when it is needed."""
    if not any(document.text.strip() for document in texts):
        raise StudyError("recipes/replay: the text has no document with words; name another one in replay_text")
    generator = np.random.default_rng(seed)
    while True:
        for index in generator.permutation(len(texts)):
            yield from tokenized(tokenizer, [texts[index].text])[0].ids
            yield eos(tokenizer)
