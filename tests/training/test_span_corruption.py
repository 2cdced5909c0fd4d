"""T5's noise mask: counts that can be checked by hand, and what holds for every length, density and span."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.training import span_corruption

LENGTHS = st.integers(2, 700)
DENSITIES = st.floats(0.01, 0.99)
SPANS = st.floats(1, 70)
SEEDS = st.integers(0, 2**32 - 1)


def sentinel(number: int) -> tuple[int]:
    """A sentinel of one token that no text has."""
    return (-1 - number,)


def runs(mask: np.ndarray) -> list[tuple[bool, int]]:
    """Stretches of equal values with their lengths."""
    return [(bool(value), len(list(own))) for value, own in groupby(mask)]


def test_the_worked_example() -> None:
    """512 tokens at 15 % in spans of 3: 77 of noise in 26 spans, 435 + 26 inputs, 77 + 26 targets."""
    assert span_corruption.counts(512, 0.15, 3) == (77, 26)
    mask = span_corruption.noise_mask(512, 0.15, 3, np.random.default_rng(0))
    assert mask.sum() == 77 and len(runs(mask)) == 52
    found = span_corruption.corrupt(range(512), mask, sentinel)
    assert (len(found.inputs), len(found.targets), sum(found.spanned)) == (461, 103, 77)


@pytest.mark.parametrize(
    ("length", "density", "span", "expected"),
    [
        (2, 0.15, 3, (1, 1)),  # 0.3 is no token, but one there is
        (2, 0.99, 3, (1, 1)),  # and one is kept
        (10, 0.15, 3, (2, 1)),  # 1.5, to the even one
        (10, 0.25, 3, (2, 1)),  # 2.5, to the even one
        (100, 0.5, 64, (50, 1)),
        (100, 0.5, 20, (50, 2)),  # 2.5, to the even one
        (1024, 0.5, 32, (512, 16)),
        (10, 0.9, 1, (9, 1)),  # one token is left, so there is one span
    ],
)
def test_counts_by_hand(length: int, density: float, span: float, expected: tuple[int, int]) -> None:
    assert span_corruption.counts(length, density, span) == expected


@given(LENGTHS, DENSITIES, SPANS, SEEDS)
def test_masks_keep_their_counts_and_take_turns(length: int, density: float, span: float, seed: int) -> None:
    mask = span_corruption.noise_mask(length, density, span, np.random.default_rng(seed))
    noise, number = span_corruption.counts(length, density, span)
    assert mask.shape == (length,) and mask.dtype == bool
    assert mask.sum() == noise and 1 <= noise <= length - 1
    assert not mask[0] and mask[-1]
    assert len(runs(mask)) == 2 * number
    assert np.array_equal(mask, span_corruption.noise_mask(length, density, span, np.random.default_rng(seed)))


@given(LENGTHS, DENSITIES, SPANS, SEEDS)
def test_nothing_of_a_corrupted_sequence_is_lost(length: int, density: float, span: float, seed: int) -> None:
    mask = span_corruption.noise_mask(length, density, span, np.random.default_rng(seed))
    found = span_corruption.corrupt(range(length), mask, sentinel)
    _, number = span_corruption.counts(length, density, span)
    holders = [-1 - n for n in range(number)]
    assert [token for token in found.inputs if token < 0] == [t for t in found.targets if t < 0] == holders
    assert [token for token in found.inputs if token >= 0] == [place for place in range(length) if not mask[place]]
    assert [token for token, own in zip(found.targets, found.spanned, strict=True) if own] == list(np.flatnonzero(mask))
    assert [found.places[at] for at in np.flatnonzero(found.spanned)] == list(np.flatnonzero(mask))
    starts = [place for place in range(1, length) if mask[place] and not mask[place - 1]]
    assert [found.places[at] for at in np.flatnonzero(~np.array(found.spanned))] == starts
    assert found.targets[0] == -1 and found.spanned == [token >= 0 for token in found.targets]
    filled: list[int] = []
    pieces = np.split(np.array(found.targets), np.flatnonzero(~np.array(found.spanned)))[1:]
    for token in found.inputs:
        filled.extend(pieces[-1 - token][1:].tolist() if token < 0 else [token])
    assert filled == list(range(length))


def test_a_sentinel_may_be_several_tokens() -> None:
    found = span_corruption.corrupt([5, 6, 7, 8], [False, True, False, True], lambda number: (90, number))
    assert found.inputs == [5, 90, 0, 7, 90, 1]
    assert found.targets == [90, 0, 6, 90, 1, 8]
    assert found.spanned == [False, False, True, False, False, True]
    assert found.places == [1, 1, 1, 3, 3, 3]


def test_every_way_to_cut_is_as_likely() -> None:
    """7 tokens, 3 of noise in 2 spans: 3 ways to cut the 4 kept ones and 2 to cut the noise."""
    assert span_corruption.counts(7, 0.43, 1.5) == (3, 2)
    generator = np.random.default_rng(0)
    seen = Counter(tuple(span_corruption.noise_mask(7, 0.43, 1.5, generator)) for _ in range(6000))
    assert len(seen) == 6
    # 1000 each on average with a standard deviation of 29.
    assert all(880 < count < 1120 for count in seen.values())
