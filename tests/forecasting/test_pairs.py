"""Pairs, tie rules, subsets, splits and rankings: numbers by hand, and scipy as the other implementation."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau, somersd

from workflow.errors import StudyError
from workflow.forecasting import cohorts, pairs, ranking, splits
from workflow.statistics import Resampling

HOW = Resampling(400, 0.95, 0)


def block(tmp_path: Path, rows: str, header: str = "id,lr,kind,p,s") -> dict:
    path = tmp_path / "variants.csv"
    path.write_text(f"{header}\n{rows}", encoding="utf-8")
    return {"path": str(path), "key": "id", "fields": ["lr", "kind"], "indicators": ["p"], "targets": ["s"]}


def table(tmp_path: Path, rows: str) -> cohorts.Cohort:
    return cohorts.read(block(tmp_path, rows))


def grid_rows(values: np.ndarray) -> str:
    """Six learning rates by two kinds, with these indicators and targets."""
    configs = [(rate, kind) for kind in "AB" for rate in range(1, 7)]
    numbers = zip(configs, values, strict=True)
    return "".join(f"b{n},{rate},{kind},{p},{s}\n" for n, ((rate, kind), (p, s)) in enumerate(numbers))


@pytest.fixture
def small(tmp_path: Path) -> cohorts.Cohort:
    return table(tmp_path, grid_rows(np.random.default_rng(3).normal(size=(12, 2))))


def test_three_bases_by_hand() -> None:
    """Indicator 1, 1, 2 and target 5, 6, 6: one pair tied in the indicator, one right, one tied in the target."""
    preference, difference = pairs.differences(np.array([1.0, 1, 2])), pairs.differences(np.array([5.0, 6, 6]))
    assert list(preference) == [0, -1, -1] and list(difference) == [-1, -1, 0]
    # gt: "not first" is said three times and true three times; strict: only the second pair is right.
    assert pairs.accuracy(preference, difference, "gt") == 1
    assert pairs.accuracy(preference, difference, "strict") == pytest.approx(1 / 3)
    assert pairs.accuracy(preference, difference, "half") == pytest.approx((0.5 + 1) / 2)


def test_half_is_the_concordance_index_and_without_ties_kendall_s_tau() -> None:
    generator = np.random.default_rng(1)
    indicator, target = generator.normal(size=30), generator.normal(size=30)
    preference, difference = pairs.differences(indicator), pairs.differences(target)
    tau = kendalltau(indicator, target).statistic
    for ties in pairs.TIES:
        assert pairs.accuracy(preference, difference, ties) == pytest.approx((1 + tau) / 2)
    rough, grades = np.round(indicator), np.round(target)
    expected = (1 + somersd(grades, rough).statistic) / 2
    found = pairs.accuracy(pairs.differences(rough), pairs.differences(grades), "half")
    assert found == pytest.approx(expected)


def test_sizes_of_the_published_study() -> None:
    assert [len(pairs.first_second(n)[0]) for n in (30, 20, 50)] == [435, 190, 1225]
    assert pairs.null_deviation(50) == pytest.approx(0.0488, abs=5e-5)
    assert pairs.null_deviation(20) == pytest.approx(0.081, abs=5e-4)


def test_null_deviation_is_that_of_random_orders() -> None:
    generator = np.random.default_rng(0)
    orders = generator.permuted(np.tile(np.arange(20.0), (4000, 1)), axis=1)
    found = pairs.accuracy(pairs.differences(orders), pairs.differences(np.arange(20.0)))
    assert found.mean() == pytest.approx(0.5, abs=0.005)
    assert found.std() == pytest.approx(pairs.null_deviation(20), rel=0.04)


def test_gaps_are_fifths_from_close_to_far() -> None:
    difference = pairs.differences(np.array([0.0, 1, 3, 7, 15]))
    found = {name: sorted(np.abs(difference[mask])) for name, mask in pairs.gaps(difference).items()}
    assert found == {"gap_1": [1, 2], "gap_2": [3, 4], "gap_3": [6, 7], "gap_4": [8, 12], "gap_5": [14, 15]}


def test_matched_pairs_of_a_grid(small: cohorts.Cohort) -> None:
    """Six rates by two kinds: 6 pairs share a rate, 2 x 15 a kind; who shares one field differs in the other alone."""
    found = pairs.matched(small)
    assert {name: int(mask.sum()) for name, mask in found.items()} == {
        "same_lr": 6, "same_kind": 30, "only_lr": 30, "only_kind": 6,
    }  # fmt: skip
    assert np.array_equal(found["same_lr"], found["only_kind"])
    contrasts = pairs.contrasts(small, ["kind"])
    assert {name: int(mask.sum()) for name, mask in contrasts.items()} == {"kind=A/B": 6}
    assert len(pairs.contrasts(small, ["lr"])) == 15
    assert len(pairs.contrasts(small, ["lr", "kind"])) == 12 * 11 // 2


def test_rows_of_pairs_say_what_is_shared(small: cohorts.Cohort) -> None:
    rows = pairs.rows(small)
    assert len(rows) == 66 and sum(row["shared"] == ["lr"] for row in rows) == 6
    first = rows[0]
    assert (first["first"], first["second"], first["shared"], first["twins"]) == ("b0", "b1", ["kind"], False)
    assert first["difference"] == pytest.approx(small.rows["s"][0] - small.rows["s"][1])


def test_twins_are_one_model(tmp_path: Path) -> None:
    """Bases 0, 4 and 7 are equal to a thousandth of the spread; 0 and 1 share only the indicator."""
    values = np.random.default_rng(5).normal(size=(12, 2))
    values[4], values[7], values[1, 0] = values[0], values[0] + 0.001, values[0, 0]
    twins = table(tmp_path, grid_rows(values)).twins
    assert twins[0] == twins[4] == twins[7]
    assert len(np.unique(twins)) == 10


def test_bases_of_one_run_are_one_unit_and_so_are_twins_in_two(tmp_path: Path) -> None:
    """Runs b0-b2, b3-b5, …; base 4 is base 0 again, which joins their runs."""
    values = np.random.default_rng(5).normal(size=(12, 2))
    values[4] = values[0]
    rows = [f"{line},r{number // 3}" for number, line in enumerate(grid_rows(values).splitlines())]
    settings = block(tmp_path, "\n".join(rows), "id,lr,kind,p,s,run") | {"run": "run"}
    found = cohorts.read(settings)
    assert found.units.tolist() == [0] * 6 + [1] * 3 + [2] * 3
    for split in ("every_pair", "leave_out_kind"):
        for folds in splits.rounds(found, split):
            for fold in folds:
                asked = [found.units[side[fold.pairs]] for side in pairs.first_second(12)]
                assert not set(np.concatenate(asked)) & set(found.units[fold.train])
    assert splits.rounds(found, "random") == []  # three units: a split of these tells nothing


def test_weights_of_a_pair_are_products_except_within_twins() -> None:
    twins = np.array([0, 1, 0, 2])
    weights = pairs.resampled_weights(twins, HOW)
    drawn = np.concatenate(list(HOW.weights(3)))
    zero, one, two = drawn.T
    expected = [zero * one, zero, zero * two, one * zero, one * two, zero * two]  # pairs 01 02 03 12 13 23
    assert np.array_equal(weights, np.column_stack(expected))


# --- splits -----------------------------------------------------------------------------------------------------------

TWINS = np.array([*range(48), 45, 46])


@pytest.mark.parametrize("split", ["every_pair", "random", "leave_out_lr", "leave_out_kind"])
def test_no_model_is_on_both_sides(split: str, tmp_path: Path) -> None:
    values = np.random.default_rng(5).normal(size=(12, 2))
    values[11] = values[2]
    found = table(tmp_path, grid_rows(values))
    first, second = pairs.first_second(12)
    rounds = splits.rounds(found, split)
    for folds in rounds:
        for fold in folds:
            asked = np.concatenate([found.twins[first[fold.pairs]], found.twins[second[fold.pairs]]])
            assert not set(asked) & set(found.twins[fold.train])
            assert fold.train.sum() >= 5
    sizes = {"every_pair": 1, "random": 20, "leave_out_lr": 6, "leave_out_kind": 2}
    assert len(rounds) == sizes[split]


def test_every_pair_is_asked_once() -> None:
    folds = splits.every_pair(TWINS)
    assert np.array_equal(np.sum([fold.pairs for fold in folds], axis=0), np.ones(1225))
    assert all(28 <= fold.train.sum() <= 32 for fold in folds)


def test_random_splits_are_60_to_40_and_repeatable(tmp_path: Path) -> None:
    folds = [splits.drawn(TWINS, seed) for seed in range(20)]
    drawn = [fold.train for fold in folds]
    assert {(int(fold.train.sum()), int(fold.pairs.sum())) for fold in folds} == {(30, 190)}
    assert all(train[45] == train[48] and train[46] == train[49] for train in drawn)
    assert len({train.tobytes() for train in drawn}) == 20
    assert np.array_equal(drawn[7], splits.drawn(TWINS, 7).train)


def test_leaving_a_level_out_asks_within_it(small: cohorts.Cohort) -> None:
    first, second = pairs.first_second(12)
    for level, (fold,) in zip([1, 2, 3, 4, 5, 6], splits.rounds(small, "leave_out_lr"), strict=True):
        (pair,) = np.flatnonzero(fold.pairs)
        assert small.rows["lr"][first[pair]] == small.rows["lr"][second[pair]] == level
        assert fold.train.sum() == 10


def test_a_level_that_leaves_too_few_is_kept(tmp_path: Path) -> None:
    """Kind B has three bases: it can be left out, kind A cannot; a rate with a single base makes no pair."""
    rows = (
        GOOD.replace(",B,", ",A,")
        .replace("b9,4,A", "b9,4,B")
        .replace("b10,5,A", "b10,5,B")
        .replace("b11,6,A", "b11,7,B")
    )
    found = table(tmp_path, rows)
    ((fold,),) = splits.rounds(found, "leave_out_kind")
    assert np.flatnonzero(~fold.train).tolist() == [9, 10, 11]
    assert len(splits.rounds(found, "leave_out_lr")) == 5


def test_a_field_with_a_value_for_each_base_cannot_be_left_out(tmp_path: Path) -> None:
    rows = "".join(f"b{n},{n},{'AB'[n % 2]},{n**1.5},{n**2}\n" for n in range(12))
    assert splits.rounds(table(tmp_path, rows), "leave_out_lr") == []


# --- rankings ---------------------------------------------------------------------------------------------------------


def test_wins_of_an_order_are_its_ranks() -> None:
    scores = np.array([0.3, 0.9, 0.1, 0.5])
    assert list(ranking.wins(pairs.differences(scores), 4)) == [1, 3, 0, 2]
    assert list(ranking.wins(pairs.differences(np.array([1.0, 1, 0])), 3)) == [1, 1, 0]


def test_recall_regret_and_shortlist_by_hand() -> None:
    """Wins 3, 2, 2, 0: the best base, 9.0, shares the second place with one at 4.0."""
    counts, target = np.array([3.0, 2, 2, 0]), np.array([7.0, 9, 4, 1])
    assert list(ranking.recall(counts, target == 9)) == [0, 0.5, 1, 1]
    assert list(ranking.recall(counts, target >= 7)) == [0.5, 0.75, 1, 1]
    assert ranking.regret(counts, target) == 2
    assert ranking.shortlist(counts, target) == 3
    assert ranking.regret(np.array([1.0, 1, 1, 1]), target) == 9 - target.mean()
    assert (
        ranking.shortlist(np.array([1.0, 1, 1, 1]), np.array([9.0, 9, 4, 1])) == 3
    )  # two of four: the third is one of them


def test_recall_with_ties_is_the_mean_over_orders() -> None:
    generator = np.random.default_rng(0)
    counts = np.array([4.0, 2, 2, 2, 1, 0])
    wanted = np.array([False, True, False, False, True, False])
    shares = np.zeros(6)
    for _ in range(4000):
        order = np.lexsort((generator.random(6), -counts))
        shares += np.cumsum(wanted[order]) / 2
    assert ranking.recall(counts, wanted) == pytest.approx(shares / 4000, abs=0.02)


# --- reading ----------------------------------------------------------------------------------------------------------

GOOD = grid_rows(np.arange(24.0).reshape(12, 2) ** 1.5)


def test_fields_are_numbers_where_all_their_values_are(tmp_path: Path) -> None:
    found = table(tmp_path, GOOD)
    assert found.numeric("lr") and not found.numeric("kind")
    assert found.levels("kind") == ["A", "B"] and found.ids[:2] == ["b0", "b1"]


@pytest.mark.parametrize(
    ("rows", "header", "line"),
    [
        (GOOD, "id,lr,kind,q,s", ": column 'p' is missing; found id, lr, kind, q, s"),
        (GOOD.replace("b3,", "b2,"), None, ", row 4: id 'b2' occurs twice; expected one row each"),
        (GOOD.replace("b3,4,A", "b3,,A"), None, ", row 4: column 'lr' is blank, expected a value"),
        ("\n".join(GOOD.splitlines()[:9]), None, ": found 9 rows, expected at least 10"),
        (GOOD.replace("b0,1,A,0.0", "b0,1,A,low"), None, ", row 1: column 'p': found 'low', expected a number"),
        (GOOD.replace("b0,1,A,0.0", "b0,1,A,nan"), None, ", row 1: column 'p': found 'nan', expected a number"),
        (GOOD.replace("b0,1,A,0.0", "b0,1,A,1_000"), None, ", row 1: column 'p': found '1_000', expected a number"),
        (GOOD.replace("b0,1,A,0.0", "b0,1,A,\u0661"), None, ", row 1: column 'p': found '\u0661', expected a number"),
        (GOOD.replace(",B,", ",A,"), None, ": field 'kind' is 'A' in all rows, expected at least two values"),
        (GOOD.replace("b0,1,A,0.0,1.0", "b0,1,A,0.0"), None, ", row 1: found 4 cells, expected 5 as in the header"),
    ],
    ids=["column", "twice", "blank", "short", "text", "nan", "underscore", "other digits", "constant", "ragged"],
)
def test_a_table_that_cannot_be_read_is_refused_in_one_line(
    rows: str, header: str | None, line: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError) as caught:
        cohorts.check(block(tmp_path, rows, header or "id,lr,kind,p,s"))
    assert str(caught.value) == f"{tmp_path / 'variants.csv'}{line}"
