"""BM25 retrieval over passages: exact, deterministic, without tuned settings.

Okapi BM25 as in Lucene (Robertson and Zaragoza, 2009, section 3; idf always positive), with the parameters that Anserini
uses for passages (Yang et al., 2018). Words are lower case; there is no stemming and no stop list.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

K1, B = 0.9, 0.4


class Postings(NamedTuple):
    """The passages that contain a word, in order, and what the word adds to the score of each."""

    passages: NDArray[np.int64]
    weights: NDArray[np.float64]


class Index:
    """Inverted index of passages."""

    def __init__(self, passages: Sequence[str]) -> None:
        counts = [Counter(words(passage)) for passage in passages]
        lengths = np.array([sum(counted.values()) for counted in counts], dtype=float)
        self.size = len(counts)
        mean = max(lengths.mean(), 1.0) if self.size else 1.0
        held: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, counted in enumerate(counts):
            for word, times in counted.items():
                held[word].append((number, times))
        saturation = K1 * (1 - B + B * lengths / mean)
        self.postings = {
            word: self._posting(np.array(documents_with), saturation) for word, documents_with in held.items()
        }

    def _posting(self, documents_with: NDArray[np.int64], saturation: NDArray[np.float64]) -> Postings:
        """The postings of a word; shape (passages, 2): passage and number of occurrences."""
        numbers, times = documents_with.T
        idf = np.log1p((self.size - len(numbers) + 0.5) / (len(numbers) + 0.5))
        return Postings(numbers, idf * times / (times + saturation[numbers]))

    def scores(self, query: str) -> NDArray[np.float64]:
        """Score of each passage for a query, shape (passages,). A word that occurs twice in the query counts twice."""
        total = np.zeros(self.size)
        for word, times in Counter(words(query)).items():
            if word in self.postings:
                postings = self.postings[word]
                total[postings.passages] += times * postings.weights
        return total

    def best(self, query: str, count: int = 1) -> list[int]:
        """Indices of the best passages, best first; ties in the order of the passages.

        Passages without a word of the query are left out.
        """
        scores = self.scores(query)
        order = np.lexsort((np.arange(self.size), -scores))[:count]
        return [int(number) for number in order if scores[number] > 0]


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"\w+", text.lower())
