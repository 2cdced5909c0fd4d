"""BM25 by hand and against its formula, passage by passage."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from workflow.data import retrieval
from workflow.data.retrieval import K1, B, Index


def plain(passages: list[str], query: str) -> list[float]:
    """The score of each passage by the formula alone."""
    texts = [retrieval.words(passage) for passage in passages]
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for word in retrieval.words(query):
            holding = sum(word in other for other in texts)
            idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            times = text.count(word)
            score += idf * times / (times + K1 * (1 - B + B * len(text) / mean))
        scores.append(score)
    return scores


def test_scores_by_hand() -> None:
    """Three passages of two words: `cat` in two, so idf is ln(1 + 1.5 / 2.5) = ln 1.6; once in each, so 1 / 1.9 of it."""
    scores = Index(["a cat", "The Cat!", "a dog"]).scores("cat?")
    assert scores == pytest.approx([math.log(1.6) / 1.9, math.log(1.6) / 1.9, 0])


def test_scores_follow_the_formula() -> None:
    generator = random.Random(0)
    vocabulary = [f"w{number}" for number in range(30)]
    passages = [" ".join(generator.choices(vocabulary, k=generator.randint(1, 40))) for _ in range(50)]
    index = Index(passages)
    for _ in range(20):
        query = " ".join(generator.choices([*vocabulary, "unknown"], k=6))
        expected = plain(passages, query)
        assert np.allclose(index.scores(query), expected)
        ranked = sorted(range(50), key=lambda number: (-index.scores(query)[number], number))
        assert index.best(query, 5) == [number for number in ranked[:5] if expected[number] > 0]


def test_of_equal_passages_the_first_comes_first() -> None:
    assert Index(["b", "a cat", "a cat", "c"]).best("cat", 4) == [1, 2]


def test_nothing_is_found_of_unknown_words_or_no_passages() -> None:
    assert Index(["a cat"]).best("dog") == [] and Index([]).best("dog") == []
