"""Pre-training objectives, as rows of token ids with a mask of the scored tokens.

An objective is a mixture of denoisers; one is drawn for each row. Sources: CLM, SC, PLM and their mixtures as in
Zeng et al. (2025, arXiv 2504.12491, section 2); UL2's denoisers from Tay et al. (2023, arXiv 2205.05131), those of UL2R
from U-PaLM (Tay et al., 2022, arXiv 2210.11399, section 2.3), the shares of UL2R+CLM from Garcia et al. (2023).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from workflow.settings import Pretraining
from workflow.training import span_corruption


class Denoiser(NamedTuple):
    """One way to make a training row from a piece of text.

    kind: `clm` (all tokens are scored), `prefix` (tokens after a random point are scored) or `spans` (spans are removed and
    scored after the rest). density: share of noise tokens for spans, mean share of the suffix for a prefix (0: uniform
    length); span: mean length of a span; mode: the token that names the denoiser, if the objective has mode tokens.
    """

    kind: str
    density: float = 0.0
    span: float = 0.0
    mode: str = ""


class Group(NamedTuple):
    """Equally likely denoisers that share a weight."""

    weight: float
    denoisers: tuple[Denoiser, ...]


class TrainingRow(NamedTuple):
    """Token ids of one training sequence, and whether each is scored given those before it."""

    ids: list[int]
    scored: list[bool]


R, X, S = "[NLU]", "[NLG]", "[S2S]"  # mode tokens of UL2, section 3.1.2
CLM, PREFIX, SPANS = Denoiser("clm"), Denoiser("prefix"), Denoiser("spans", 0.15, 3)
UL2R_X = Denoiser("spans", 0.5, 32, X)

OBJECTIVES: dict[str, dict[str, Group]] = {
    "clm": {"clm": Group(1.0, (CLM,))},
    "sc": {"sc": Group(1.0, (SPANS,))},
    "plm": {"plm": Group(1.0, (PREFIX,))},
    "sc+clm": {"sc": Group(0.5, (SPANS,)), "clm": Group(0.5, (CLM,))},
    "ul2": {
        "r": Group(2 / 7, (Denoiser("spans", 0.15, 3, R), Denoiser("spans", 0.15, 8, R))),
        "x": Group(
            4 / 7,
            tuple(Denoiser("spans", share, span, X) for share, span in ((0.5, 3), (0.5, 8), (0.15, 64), (0.5, 64))),
        ),
        "s": Group(1 / 7, (Denoiser("prefix", 0.25, mode=S),)),
    },
    "ul2r": {
        "s": Group(0.5, (Denoiser("prefix", mode=S),)),
        "r": Group(0.25, (SPANS._replace(mode=R),)),
        "x": Group(0.25, (UL2R_X,)),
    },
    "ul2r+clm": {
        "clm": Group(0.6, (CLM,)),
        "s": Group(0.2, (Denoiser("prefix", mode=S),)),
        "r": Group(0.1, (SPANS._replace(mode=R),)),
        "x": Group(0.1, (UL2R_X,)),
    },
}


def denoisers(recipe: Pretraining) -> list[tuple[float, Denoiser]]:
    """Return the denoisers of a recipe, each with its share of rows.

    recipe: objective; weights (of all groups, instead of the objective's); mode_tokens (whether rows begin with mode tokens).
    """
    groups = OBJECTIVES[recipe["objective"]]
    weights = recipe.get("weights") or {name: group.weight for name, group in groups.items()}
    total = sum(weights.values())
    shares = []
    for name, group in groups.items():
        for denoiser in group.denoisers:
            share = weights[name] / total / len(group.denoisers)
            shares.append((share, denoiser if recipe.get("mode_tokens", True) else denoiser._replace(mode="")))
    return shares


def special_tokens(recipe: Pretraining) -> list[str]:
    """Return the special tokens of a recipe's rows: modes, and as many sentinels as a row may have."""
    used = [denoiser for share, denoiser in denoisers(recipe) if share]
    modes = dict.fromkeys(denoiser.mode for denoiser in used if denoiser.mode)
    most = max((_spans(recipe["sequence"], denoiser) for denoiser in used if denoiser.kind == "spans"), default=0)
    return [*modes, *map(span_corruption.word, range(most))]


def _spans(sequence: int, denoiser: Denoiser) -> int:
    """Return the number of spans in a denoiser's row."""
    length = stretch(sequence - bool(denoiser.mode), denoiser.density, denoiser.span)
    return span_corruption.counts(length, denoiser.density, denoiser.span)[1]


@functools.cache
def stretch(room: int, density: float, span: float) -> int:
    """Return the tokens of the longest text that fits once its spans are masked, with two sentinels each and EOS at the end."""
    return next(
        length
        for length in range(room - 1, 1, -1)
        if length + 2 * span_corruption.counts(length, density, span)[1] + 1 <= room
    )


def rows(
    take: Callable[[int], list[int]],
    recipe: Pretraining,
    ids: Mapping[str, int],
    end: int,
    pad: int,
    generator: np.random.Generator,
) -> Iterator[TrainingRow]:
    """Yield training rows of `sequence` tokens without end.

    take: returns the next tokens of the text; ids: of the special tokens; end, pad: ids of EOS and of padding.
    """
    shares, kinds = zip(*denoisers(recipe), strict=True)
    while True:
        denoiser = kinds[generator.choice(len(kinds), p=shares)] if len(kinds) > 1 else kinds[0]
        yield _row(take, denoiser, recipe["sequence"], ids, end, pad, generator)


def _row(
    take: Callable[[int], list[int]],
    denoiser: Denoiser,
    sequence: int,
    ids: Mapping[str, int],
    end: int,
    pad: int,
    generator: np.random.Generator,
) -> TrainingRow:
    """Return one row of one denoiser."""
    mode = [ids[denoiser.mode]] if denoiser.mode else []
    room = sequence - len(mode)
    if denoiser.kind == "clm":
        return TrainingRow([*mode, *take(room)], [False] * len(mode) + [True] * room)
    if denoiser.kind == "prefix":
        suffix = suffix_length(room, denoiser.density, generator)
        return TrainingRow([*mode, *take(room)], [False] * (sequence - suffix) + [True] * suffix)
    text = take(stretch(room, denoiser.density, denoiser.span))
    mask = span_corruption.noise_mask(len(text), denoiser.density, denoiser.span, generator)
    corrupted = span_corruption.corrupt(text, mask.tolist(), lambda number: (ids[span_corruption.word(number)],))
    row = [*mode, *corrupted.inputs, *corrupted.targets, end]
    rest = sequence - len(row)
    scored = [False] * (len(mode) + len(corrupted.inputs)) + [True] * (len(corrupted.targets) + 1)
    return TrainingRow(row + [pad] * rest, scored + [False] * rest)


def suffix_length(length: int, share: float, generator: np.random.Generator) -> int:
    """Return the number of tokens after a prefix: uniform from 1 to all but one, or with the given mean share."""
    most = length - 1 if not share else max(1, min(length - 1, round(2 * share * length) - 1))
    return int(generator.integers(1, most + 1))
