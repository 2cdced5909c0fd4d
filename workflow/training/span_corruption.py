"""Span corruption: which tokens of a sequence are noise, and what becomes of the sequence without them.

The mask is that of T5's preprocessors (Raffel et al., 2020, section 3.1.4; `random_spans_noise_mask` of the released code),
for objectives of pre-training and for the perplexity of masked spans alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Corrupted(NamedTuple):
    """A sequence whose spans of noise stand behind it, each led by the sentinel that holds its place.

    Of each target: places, where it was in the sequence (of a sentinel: where its span begins); spanned, whether it is of
    a span, not of a sentinel.
    """

    inputs: list[int]
    targets: list[int]
    places: list[int]
    spanned: list[bool]


def counts(length: int, density: float, span: float) -> tuple[int, int]:
    """Tokens of noise in a sequence of at least two, and the spans that they stand in.

    Where most is noise there may be fewer tokens left than spans; T5's code then makes a mask of another length, here the
    spans are fewer.
    """
    noise = min(max(round(length * density), 1), length - 1)
    return noise, min(max(1, round(noise / span)), length - noise)


def noise_mask(length: int, density: float, span: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Which tokens of a sequence are noise: shape (length,), kept tokens first, spans of both taking turns.

    density: share of noise; span: mean length of its spans. Each way to cut noise and rest into spans is as likely as
    any other.
    """
    noise, spans = counts(length, density, span)
    lengths = np.stack([_parts(length - noise, spans, generator), _parts(noise, spans, generator)], axis=1)
    return np.repeat(np.tile([False, True], spans), lengths.reshape(-1))


def _parts(items: int, parts: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """A number of items cut into parts, none of them empty."""
    cuts = np.zeros(items - 1, dtype=bool)
    cuts[: parts - 1] = True
    generator.shuffle(cuts)
    return np.bincount(np.concatenate([[0], np.cumsum(cuts)]), minlength=parts)


def corrupt(ids: Sequence[int], mask: Sequence[bool], sentinel: Callable[[int], Sequence[int]]) -> Corrupted:
    """A sequence with each span of noise replaced by a sentinel, and the spans, each behind its sentinel.

    sentinel: the token ids of the sentinel of a span, counted from 0. No sentinel closes the targets.
    """
    inputs: list[int] = []
    targets: list[int] = []
    places: list[int] = []
    spanned: list[bool] = []
    number = -1
    for place, (token, noise) in enumerate(zip(ids, mask, strict=True)):
        if not noise:
            inputs.append(token)
            continue
        if place == 0 or not mask[place - 1]:
            number += 1
            holder = sentinel(number)
            inputs.extend(holder)
            targets.extend(holder)
            places.extend([place] * len(holder))
            spanned.extend([False] * len(holder))
        targets.append(token)
        places.append(place)
        spanned.append(True)
    return Corrupted(inputs, targets, places, spanned)


def word(number: int) -> str:
    """What a sentinel is called, in T5's vocabulary and elsewhere."""
    return f"<extra_id_{number}>"
