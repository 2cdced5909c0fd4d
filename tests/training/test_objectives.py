"""Objectives of pre-training: rows that can be made by hand, shares of denoisers, what is scored."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.study import config as configs
from workflow.training import objectives, span_corruption
from workflow.training.objectives import OBJECTIVES, Denoiser

END, PAD, FIRST = -1, -2, 1000


def recipe(objective: str, sequence: int = 64, **settings: Any) -> dict[str, Any]:
    """The part of a recipe that says how rows are made."""
    return {"objective": objective, "sequence": sequence, **settings}


def text() -> Any:
    """A text of the numbers from FIRST on."""
    numbers = itertools.count(FIRST)
    return lambda count: list(itertools.islice(numbers, count))


def made(settings: dict[str, Any], count: int, seed: int = 0) -> list[objectives.TrainingRow]:
    """The first rows of a recipe; special tokens are the numbers from 0 on."""
    ids = {token: number for number, token in enumerate(objectives.special_tokens(settings))}
    generator = np.random.default_rng(seed)
    return list(itertools.islice(objectives.rows(text(), settings, ids, END, PAD, generator), count))


def test_the_schema_knows_every_objective() -> None:
    assert configs.schema()["$defs"]["pretraining"]["properties"]["objective"]["enum"] == list(OBJECTIVES)


def test_the_next_token_is_foretold_of_all() -> None:
    rows = made(recipe("clm", 8), 2)
    assert [row.ids for row in rows] == [list(range(1000, 1008)), list(range(1008, 1016))]
    assert all(all(row.scored) for row in rows)


@given(st.integers(2, 300), st.integers(0, 1000))
def test_a_prefix_leaves_a_suffix(sequence: int, seed: int) -> None:
    (row,) = made(recipe("plm", sequence), 1, seed)
    assert row.ids == list(range(1000, 1000 + sequence))
    suffix = sum(row.scored)
    assert 1 <= suffix <= sequence - 1 and row.scored == [False] * (sequence - suffix) + [True] * suffix


def test_suffixes_are_uniform_or_a_share_on_average() -> None:
    generator = np.random.default_rng(0)
    whole = Counter(objectives.suffix_length(5, 0, generator) for _ in range(4000))
    assert sorted(whole) == [1, 2, 3, 4] and all(880 < count < 1120 for count in whole.values())
    shares = [objectives.suffix_length(512, 0.25, generator) for _ in range(4000)]
    # Uniform over 1 to 255, so 128 on average with a standard error of 73.6 / sqrt(4000) = 1.2.
    assert min(shares) >= 1 and max(shares) <= 255 and np.mean(shares) == pytest.approx(128, abs=4)


def test_masked_spans_by_hand() -> None:
    """Of 20 places, 15 are text (2 of noise, 15 x .15 rounded; one span of them), 2 sentinels and EOS: 18; 17 of text are
    3 of noise in one span: 20."""
    settings = recipe("sc", 20)
    assert objectives.stretch(20, 0.15, 3) == 17 and span_corruption.counts(17, 0.15, 3) == (3, 1)
    assert objectives.special_tokens(settings) == ["<extra_id_0>"]
    (row,) = made(settings, 1)
    assert row.ids == [*range(1000, 1014), 0, 0, 1014, 1015, 1016, END]
    assert row.scored == [False] * 15 + [True] * 5


@given(
    st.integers(16, 600), st.sampled_from([(0.15, 3), (0.15, 8), (0.5, 3), (0.5, 8), (0.15, 64), (0.5, 64), (0.5, 32)])
)
def test_as_much_text_is_masked_as_fits(room: int, kind: tuple[float, float]) -> None:
    def needed(length: int) -> int:
        return length + 2 * span_corruption.counts(length, *kind)[1] + 1

    length = objectives.stretch(room, *kind)
    assert needed(length) <= room
    assert all(needed(longer) > room for longer in range(length + 1, room))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_rows_are_full_and_what_is_scored_follows_what_is_read(objective: str) -> None:
    settings = recipe(objective, 96)
    special = objectives.special_tokens(settings)
    for row in made(settings, 60):
        assert len(row.ids) == len(row.scored) == 96
        body = [token for token in row.ids if token >= FIRST]
        assert sorted(body) == list(range(min(body), min(body) + len(body)))  # text without a gap, each token once
        first, last = row.scored.index(True), 95 - row.scored[::-1].index(True)
        assert all(row.scored[first : last + 1])
        assert all(token == PAD for token in row.ids[last + 1 :]) and PAD not in row.ids[: last + 1]
        if row.ids[last] == END:
            sentinels = [token for token in row.ids if 0 <= token < len(special) and special[token].startswith("<")]
            half = len(sentinels) // 2
            assert sentinels[:half] == sentinels[half:] and len(set(sentinels)) == half >= 1
            assert row.ids[first] == sentinels[0]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_same_seed_same_rows(objective: str) -> None:
    settings = recipe(objective)
    assert made(settings, 20) == made(settings, 20)
    assert objective == "clm" or made(settings, 20) != made(settings, 20, seed=1)


def test_denoisers_have_the_shares_of_their_papers() -> None:
    """UL2: seven, each as likely; U-PaLM's: half S, a quarter R and X each; with CLM: .6, .2, .1, .1."""
    found = {name: objectives.denoisers(recipe(name)) for name in OBJECTIVES}
    assert [share for share, _ in found["ul2"]] == pytest.approx([1 / 7] * 7)
    kinds = {(one.density, one.span) for _, one in found["ul2"] if one.kind == "spans"}
    assert kinds == {(0.15, 3), (0.15, 8), (0.5, 3), (0.5, 8), (0.15, 64), (0.5, 64)}
    assert [share for share, _ in found["ul2r"]] == [0.5, 0.25, 0.25]
    assert [one.span for _, one in found["ul2r"]] == [0, 3, 32]
    assert [share for share, _ in found["ul2r+clm"]] == pytest.approx([0.6, 0.2, 0.1, 0.1])
    assert [(share, one.kind) for share, one in found["sc+clm"]] == [(0.5, "spans"), (0.5, "clm")]
    for name in OBJECTIVES:
        assert sum(share for share, _ in found[name]) == pytest.approx(1)


def test_rows_are_drawn_by_those_shares() -> None:
    """Counted by the first token: modes lead their rows, CLM has none. 2,000 rows; 3.5 standard deviations are .04."""
    settings = recipe("ul2r+clm", 64)
    special = objectives.special_tokens(settings)
    assert special[:3] == ["[S2S]", "[NLU]", "[NLG]"]
    first = Counter(row.ids[0] if row.ids[0] < 3 else 3 for row in made(settings, 2000))
    assert [first[number] / 2000 for number in range(4)] == pytest.approx([0.2, 0.1, 0.1, 0.6], abs=0.04)


def test_weights_replace_the_shares_and_modes_can_be_left_out() -> None:
    settings = recipe("ul2", weights={"r": 0, "x": 0, "s": 3}, mode_tokens=False)
    assert {denoiser for share, denoiser in objectives.denoisers(settings) if share} == {Denoiser("prefix", 0.25)}
    assert objectives.special_tokens(settings) == []
    assert all(min(row.ids) >= FIRST for row in made(settings, 20))
    half = objectives.denoisers(recipe("ul2", weights={"r": 2, "x": 1, "s": 1}))
    assert [share for share, _ in half] == pytest.approx([0.25] * 2 + [0.0625] * 4 + [0.25])
