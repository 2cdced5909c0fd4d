"""Span corruption: choose noise tokens of a sequence and move them behind it.

The mask is that of T5's preprocessors (Raffel et al., 2020, section 3.1.4; `random_spans_noise_mask` of the released code).
Pre-training objectives and the span-corruption indicator use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Corrupted(NamedTuple):
    """A sequence with sentinels in place of its noise spans, and the spans, each after its sentinel.

    For each target: places, its position in the sequence (for a sentinel, the start of its span); spanned, whether it
    belongs to a span and not to a sentinel.
    """

    inputs: list[int]
    targets: list[int]
    places: list[int]
    spanned: list[bool]


def counts(length: int, density: float, span: float) -> tuple[int, int]:
    """Return the numbers of noise tokens and of spans in a sequence of at least two tokens.

    With much noise there may be fewer other tokens than spans; T5's code then makes a mask of another length, this code uses
    fewer spans.
    """
    noise = min(max(round(length * density), 1), length - 1)
    return noise, min(max(1, round(noise / span)), length - noise)


def noise_mask(length: int, density: float, span: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return the noise mask of a sequence: shape (length,), alternating kept and noise spans, kept tokens first.

    density: share of noise; span: mean length of a noise span. All ways to split noise and rest into spans are equally
    likely.
    """
    noise, spans = counts(length, density, span)
    lengths = np.stack([_parts(length - noise, spans, generator), _parts(noise, spans, generator)], axis=1)
    return np.repeat(np.tile([False, True], spans), lengths.reshape(-1))


def _parts(items: int, parts: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the sizes of random non-empty parts of a number of items."""
    cuts = np.zeros(items - 1, dtype=bool)
    cuts[: parts - 1] = True
    generator.shuffle(cuts)
    return np.bincount(np.concatenate([[0], np.cumsum(cuts)]), minlength=parts)


def corrupt(ids: Sequence[int], mask: Sequence[bool], sentinel: Callable[[int], Sequence[int]]) -> Corrupted:
    """Replace each noise span by a sentinel; the targets are the spans, each after its sentinel.

    sentinel: number of a span, from 0 -> token ids of its sentinel. No sentinel follows the last target.
    """
    inputs: list[int] = []
    targets: list[int] = []
    places: list[int] = []
    spanned: list[bool] = []
    number = -1
    for position, (token, noise) in enumerate(zip(ids, mask, strict=True)):
        if not noise:
            inputs.append(token)
            continue
        if position == 0 or not mask[position - 1]:
            number += 1
            holder = sentinel(number)
            inputs.extend(holder)
            targets.extend(holder)
            places.extend([position] * len(holder))
            spanned.extend([False] * len(holder))
        targets.append(token)
        places.append(position)
        spanned.append(True)
    return Corrupted(inputs, targets, places, spanned)


def word(number: int) -> str:
    """Return the name of a sentinel, as in T5's vocabulary."""
    return f"<extra_id_{number}>"
