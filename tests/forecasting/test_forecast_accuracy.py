"""Forecasters, their accuracies with intervals, simulated tables with known truth, and the checks of a table."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import kendalltau, norm, rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from workflow import registry
from workflow.audit import checks as audit_modules
from workflow.audit import inputs
from workflow.audit.checks import label_noise, outlying_variants
from workflow.audit.inputs import AuditInputs
from workflow.errors import StudyError
from workflow.forecasting import (
    classifiers,
    cohorts,
    forecast_accuracy,
    forecasters,
    leaderboards,
    pairs,
    published_numbers,
    results,
    splits,
)
from workflow.planning import config_checks
from workflow.statistics import Resampling
from workflow.storage import tables

HOW = Resampling(400, 0.95, 0)
RATES, KINDS, SEEDS = (1, 2, 3, 4, 5), ("A", "B"), 4  # 40 bases
REPEATS = 4  # random splits where comparers are fitted: five times fewer than in a study


def write(folder: Path, columns: dict[str, Any], name: str = "variants.csv") -> str:
    pd.DataFrame(columns).to_csv(folder / name, index=False)
    return str(folder / name)


def configs() -> dict[str, list]:
    rows = [(rate, kind) for kind in KINDS for rate in RATES for _ in range(SEEDS)]
    return {"id": [f"b{n}" for n in range(len(rows))], "lr": [r for r, _ in rows], "kind": [k for _, k in rows]}


def block(path: str, **changes: Any) -> dict[str, Any]:
    plain = {"key": "id", "fields": ["lr", "kind"], "indicators": ["p"], "targets": ["s"], "combinations": {}}
    return plain | {"path": path, "contrasts": [], "test_rows": {}, "full_score": 1.0} | changes


def simulated(folder: Path, **columns: np.ndarray) -> tuple[cohorts.Cohort, dict[str, Any]]:
    """A table of 40 bases: every column but `s` is an indicator."""
    settings = block(write(folder, configs() | columns), indicators=[name for name in columns if name != "s"])
    return cohorts.read(settings), settings


def unfitted_rows(table: cohorts.Cohort, split: str = "every_pair") -> pd.DataFrame:
    """Forecasts of what needs no fitting, as a frame."""
    asked = splits.asked(splits.rounds(table, split))
    made = forecasters.unfitted(table, {}, len(asked))
    masks = forecast_accuracy.subsets(table, "s", split, [])
    return pd.DataFrame(forecast_accuracy.evaluate(made, "s", masks, forecast_accuracy.setting(table, asked, HOW)))


def whole(table: cohorts.Cohort, settings: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """The gathered tables over every pair and in a few random splits."""
    parts: dict[str, list] = {"forecasts": [], "rankings": [], "importance": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "REPEATS", REPEATS)
        for split in ("every_pair", "random"):
            for name, rows in forecast_accuracy.forecast(table, settings, split, HOW, lambda done, total: None).items():
                parts[name] += [{"split": split} | row for row in rows]
    schemas = {"forecasts": tables.FORECASTS, "rankings": tables.RANKINGS, "importance": tables.IMPORTANCE}
    schemas = {name: pa.schema([pa.field("split", pa.string()), *schema]) for name, schema in schemas.items()}
    return {name: tables.frame(pa.Table.from_pylist(rows, schemas[name])) for name, rows in parts.items()}


def chosen(rows: pd.DataFrame, forecaster: str, subset: str = "all", ties: str = "half") -> Any:
    own = rows[(rows["forecaster"] == forecaster) & (rows["subset"] == subset) & (rows["ties"] == ties)]
    (found,) = own.itertuples()
    return found


# --- forecasters ------------------------------------------------------------------------------------------------------


def test_normalisers_by_hand_and_by_scipy() -> None:
    values = np.array([[2.0, 7], [4, 7], [3, 7], [3, 7]])
    assert forecasters.minmax(values).tolist() == [[0, 0], [1, 0], [0.5, 0], [0.5, 0]]
    expected = (rankdata(values[:, 0]) - 0.5) / 4
    assert forecasters.rank(values)[:, 0] == pytest.approx(expected)


def test_combinations_are_weighted_means(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    p, q, s = generator.normal(size=(3, 40))
    table, _ = simulated(tmp_path, p=p, q=q, s=s)
    found = forecasters.unfitted(table, {"both": {"p": 1, "q": -2}}, 2)
    assert [(one.kind, one.forecaster) for one in found] == [
        ("indicator", "p"), ("indicator", "q"), ("combination", "minmax:both"), ("combination", "rank:both")
    ]  # fmt: skip
    scaled = [(x - x.min()) / (x.max() - x.min()) for x in (p, q)]
    expected = pairs.differences(scaled[0] - 2 * scaled[1])
    assert found[2].preferences == pytest.approx(np.tile(expected, (2, 1)))


def test_features_of_a_pair_by_hand() -> None:
    columns = np.arange(10.0).reshape(2, 5)
    found = classifiers.features(columns, np.array([1]), np.array([0]))
    assert found.shape == (1, 20)
    assert found[0, :10].tolist() == [5, 5, 5, 5, 5, 0, 6, 14, 24, 36]
    assert found[0, 10:].tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


def test_a_comparer_is_scikit_learn_s_on_scaled_training_bases() -> None:
    generator = np.random.default_rng(2)
    columns, target = generator.normal(3, 7, size=(20, 2)), generator.normal(size=20)
    train = np.arange(20) < 12
    scaled = StandardScaler().fit(columns[train]).transform(columns)
    ordered = [(i, j) for i in range(12) for j in range(12) if i != j]
    rows = [np.concatenate([scaled[i] - scaled[j], scaled[i] * scaled[j], scaled[i], scaled[j]]) for i, j in ordered]
    other = LogisticRegression(max_iter=100).fit(rows, [target[i] > target[j] for i, j in ordered])
    model = classifiers.fit("logistic", columns, target, train)
    asked = [(i, j) for i in range(20) for j in range(i + 1, 20)]
    forth, back = (
        other.predict_proba(classifiers.features(scaled, *np.transpose(order)))[:, 1]
        for order in (asked, [(j, i) for i, j in asked])
    )
    assert model.preferences() == pytest.approx(forth - 0.5)
    assert model.symmetric_preferences() == pytest.approx((forth + 1 - back) / 2 - 0.5)


@pytest.mark.parametrize("model", classifiers.MODELS)
def test_comparers_learn_a_reversed_indicator_and_repeat_themselves(model: str) -> None:
    target = np.random.default_rng(0).normal(size=40)
    columns, train = np.column_stack([-target, np.zeros(40)]), np.arange(40) % 2 == 0
    first, second = pairs.first_second(40)
    held_out = ~train[first] & ~train[second]
    fitted = classifiers.fit(model, columns, target, train)
    found = pairs.accuracy(fitted.preferences()[held_out], pairs.differences(target)[held_out])
    assert found > 0.85
    again = classifiers.fit(model, columns, target, train)
    assert np.array_equal(fitted.preferences(), again.preferences())


def test_importance_is_the_share_of_gain() -> None:
    target = np.random.default_rng(0).normal(size=40)
    noise = np.random.default_rng(1).normal(size=40)
    found = classifiers.fit("lightgbm", np.column_stack([noise, target]), target, np.ones(40, dtype=bool)).importance()
    assert found.sum() == pytest.approx(1) and found[1] > 0.9


def test_fields_learn_from_training_bases_alone(tmp_path: Path) -> None:
    """Targets fall with the rate in training and rise elsewhere; kind A is better in training, worse elsewhere."""
    rate, kind = np.array(configs()["lr"]), np.array(configs()["kind"])
    train = np.arange(40) % SEEDS < 2
    target = np.where(train, -rate + 10.0 * (kind == "A"), rate - 10.0 * (kind == "A"))
    table, _ = simulated(tmp_path, p=np.arange(40.0), s=target + np.arange(40) / 100)
    found = forecasters.fields(table, table.values(["s"])[:, 0], train)
    assert np.array_equal(np.sign(found["field", "lr"]), np.sign(pairs.differences(-rate.astype(float))))
    assert np.array_equal(np.sign(found["field", "kind"]), np.sign(pairs.differences((kind == "A").astype(float))))


def by_fields(target: list[float], train: list[bool], **fields: list[Any]) -> dict[tuple[str, str], np.ndarray]:
    """Preferences by each of some config fields of bases with these targets."""
    rows = pd.DataFrame(fields | {"id": [f"b{number}" for number in range(len(target))], "s": target})
    table = cohorts.Cohort(rows, rows.astype(str), "id", list(fields), [], ["s"])
    return forecasters.fields(table, np.array(target), np.array(train))


def test_fields_say_nothing_where_no_base_is_left_to_learn_from() -> None:
    """Two runs: every fold between them holds all bases out."""
    found = by_fields([0.0, 1, 2, 3], [False] * 4, level=list("abab"), number=[0.0, 1, 2, 3])
    assert {name: preferences.tolist() for name, preferences in found.items()} == {
        ("field", "level"): [0] * 6, ("field", "number"): [0] * 6
    }  # fmt: skip


def test_a_level_without_training_bases_gets_the_mean() -> None:
    """Of levels A, A, B, B, C the means are 2, 2, 6, 6, and 4 for C, whose own target is not looked at."""
    found = by_fields([1.0, 3, 5, 7, 100], [True] * 4 + [False], level=list("AABBC"))
    assert np.array_equal(found["field", "level"], pairs.differences(np.array([2.0, 2, 6, 6, 4])))


# --- simulated tables -------------------------------------------------------------------------------------------------


def test_a_perfect_indicator_is_always_right_and_its_reverse_never(tmp_path: Path) -> None:
    target = np.random.default_rng(0).permutation(40).astype(float)
    rows = unfitted_rows(simulated(tmp_path, p=target, q=-target, s=target)[0])
    whole = rows[rows["subset"] == "all"]
    for name, value in (("p", 1), ("q", 0)):
        own = whole[whole["forecaster"] == name]
        assert (own["accuracy"] == value).all() and own[["low", "high"]].isna().all(axis=None)
    lucky = chosen(rows, "chance")
    assert lucky.accuracy == pytest.approx(0.5)
    assert lucky.high - lucky.low == pytest.approx(2 * 1.96 * pairs.null_deviation(40), rel=0.1)


def test_random_indicators_are_at_chance_with_the_null_deviation(tmp_path: Path) -> None:
    """200 indicators that know nothing; an interval over bases leaves chance out in about one of twenty."""
    generator = np.random.default_rng(4)
    noise = {f"p{n}": generator.normal(size=40) for n in range(200)}
    rows = unfitted_rows(simulated(tmp_path, **noise, s=generator.normal(size=40))[0])
    own = rows[(rows["kind"] == "indicator") & (rows["subset"] == "all") & (rows["ties"] == "half")]
    assert own["accuracy"].mean() == pytest.approx(0.5, abs=4 * pairs.null_deviation(40) / 200**0.5)
    assert own["accuracy"].std() == pytest.approx(pairs.null_deviation(40), rel=0.15)
    misses = ((own["low"] > 0.5) | (own["high"] < 0.5)).mean()
    assert 0.01 < misses < 0.11


def test_matched_pairs_unmask_a_leak_through_a_config_field(tmp_path: Path) -> None:
    """Indicator and target both follow the rate and nothing else: right over all pairs, at chance at an equal rate."""
    generator = np.random.default_rng(7)
    rate = np.array(configs()["lr"], dtype=float)
    table, _ = simulated(tmp_path, p=rate + 0.2 * generator.normal(size=40), s=rate + 0.2 * generator.normal(size=40))
    rows = unfitted_rows(table)
    whole, level = chosen(rows, "p"), chosen(rows, "p", "same_lr")
    assert whole.low > 0.75
    assert level.low < 0.5 < level.high
    assert chosen(rows, "p", "same_kind").low > 0.75
    assert (level.n_pairs, level.n_bases) == (5 * 8 * 7 // 2, 40)


def test_what_is_known_of_a_run_is_no_forecast_once_runs_are_held_out(tmp_path: Path) -> None:
    """Ten runs of four steps; all that an indicator holds is which run it is of, and runs differ in the target.

    Learned from other steps of the same runs it seems to forecast, learned from other runs it is at chance.
    """
    generator = np.random.default_rng(3)
    name, level = generator.normal(size=(2, 10)).repeat(4, axis=1) + 0.01 * generator.normal(size=(2, 40))
    path = write(tmp_path, configs() | {"run": np.arange(10).repeat(4), "p": name, "s": level})
    accuracies = {}
    for kind, block_of in (("bases", block(path)), ("runs", block(path, run="run"))):
        found = cohorts.read(block_of)
        rounds = [splits.every_pair(found.units)]
        told = np.zeros(len(rounds[0][0].pairs))
        for fold in rounds[0]:
            told[fold.pairs] = classifiers.fit(
                "lightgbm", found.values(["p"]), level, fold.train
            ).symmetric_preferences()[fold.pairs]
        accuracies[kind] = pairs.accuracy(told, pairs.differences(level))
    assert accuracies["bases"] > 0.75
    assert abs(accuracies["runs"] - 0.5) < 2.5 * pairs.null_deviation(10)


def test_accuracy_over_splits_is_the_mean_of_rounds_with_its_spread(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    p, s = generator.normal(size=(2, 40))
    table, _ = simulated(tmp_path, p=p, s=s)
    found = chosen(unfitted_rows(table, "random"), "p", ties="strict")
    held_out = [~folds[0].train for folds in splits.rounds(table, "random")]
    taus = np.array([(1 + kendalltau(p[test], s[test]).statistic) / 2 for test in held_out])
    assert found.accuracy == pytest.approx(taus.mean()) and found.sd == pytest.approx(taus.std(ddof=1))


def test_interval_is_a_bootstrap_of_bases(tmp_path: Path) -> None:
    """Against a loop that draws bases and counts the pairs of different bases among them."""
    generator = np.random.default_rng(0)
    p = generator.normal(size=40)
    s = p + generator.normal(size=40)
    found = chosen(unfitted_rows(simulated(tmp_path, p=p, s=s)[0]), "p")
    values = []
    for _ in range(400):
        drawn = generator.integers(0, 40, size=40)
        one, other = (drawn[side] for side in pairs.first_second(40))
        apart = one != other
        values.append(np.mean((p[one] > p[other])[apart] == (s[one] > s[other])[apart]))
    low, high = np.quantile(values, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.02) and found.high == pytest.approx(high, abs=0.02)


def test_few_bases_have_no_interval(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    table, _ = simulated(tmp_path, p=generator.normal(size=40), s=generator.normal(size=40))
    rows = unfitted_rows(table)
    assert pd.notna(chosen(rows, "p", "only_kind").low)
    mask = np.zeros(780, dtype=bool)
    mask[:3] = True
    asked = splits.asked(splits.rounds(table, "every_pair"))
    made = forecasters.unfitted(table, {}, 1)
    few = pd.DataFrame(
        forecast_accuracy.evaluate(made, "s", {"three": mask}, forecast_accuracy.setting(table, asked, HOW))
    )
    found = chosen(few, "p", "three")
    assert (found.n_pairs, found.n_bases) == (3, 4) and pd.isna(found.low) and pd.isna(found.high)


# --- a whole split, its tables and checks -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> results.Forecasting:
    """A table with planted flaws, forecast in the random splits and over every pair.

    leaked follows the rate alone, as the target does but for a part that `knows` has; base 5 is base 25 again;
    base 9 has an indicator in other units; `knows` has three decimals at rates 4 and 5 and one elsewhere.
    """
    folder = tmp_path_factory.mktemp("flawed")
    generator = np.random.default_rng(11)
    rate = np.array(configs()["lr"], dtype=float)
    own = generator.normal(size=40)
    columns = {
        "leaked": 10 * rate + generator.normal(size=40),
        "knows": np.where(rate > 3, np.round(own, 3), np.round(own, 1)),
        "s": np.round((50 + 4 * rate + 2 * own + 0.3 * generator.normal(size=40)) / 100, 3),
    }
    for values in columns.values():
        values[25] = values[5]
    columns["leaked"][9] = 0.01 * columns["leaked"][9] - 300
    settings = block(
        write(folder, configs() | columns),
        indicators=["leaked", "knows"],
        combinations={"both": {"leaked": 1, "knows": 1}},
        contrasts=[["kind"]],
        test_rows={"s": [100, 400]},
        printed=str(folder / "printed.csv"),
    )
    table = cohorts.read(settings)
    frames = whole(table, settings)
    right = chosen(frames["forecasts"].query("split == 'every_pair'"), "knows", ties="gt").accuracy
    (folder / "printed.csv").write_text(
        ",".join(published_numbers.COLUMNS) + "\n"
        f"Table 1,accuracy,knows,,s,every_pair,all,gt,,=,{right + 0.009},0.01\n"
        f"Table 1,accuracy,knows,,s,every_pair,all,gt,,=,{right - 0.02},0.01\n"
        f"Table 1,accuracy,knows,,s,every_pair,all,gt,,>=,{right - 0.2},0\n"
        "Figure 3,importance_rank,lightgbm,s,,random,,,leaked,=,1,0\n"
    )
    return results.Forecasting("c", settings, table, **frames, published=published_numbers.read(folder / "printed.csv"))


@pytest.mark.slow
def test_every_table_has_its_baselines(found: results.Forecasting) -> None:
    for keys, rows in found.forecasts.groupby(["split", "subset", "ties"]):
        assert {"chance", "lr", "kind", "config", "config_and_indicators"} <= set(rows["forecaster"]), keys
    keys = ["forecaster", "source", "target", "split", "subset", "ties"]
    assert not found.forecasts.duplicated(keys).any()
    assert set(found.forecasts["kind"]) == set(leaderboards.ORDER)


@pytest.mark.slow
def test_gain_is_over_all_config_fields(found: results.Forecasting) -> None:
    rows = found.forecasts.query("split == 'random'")
    config, own = chosen(rows, "config"), chosen(rows, "lightgbm_symmetric")
    assert config.gain == config.gain_low == config.gain_high == 0
    assert own.gain == pytest.approx(own.accuracy - config.accuracy)
    assert own.gain_low < own.gain < own.gain_high


def test_importance_adds_up_to_one(found: results.Forecasting) -> None:
    sums = found.importance.groupby(["split", "forecaster", "source"])["value"].sum()
    assert sums.to_numpy() == pytest.approx(1)
    both = found.importance.query("forecaster == 'config_and_indicators' and split == 'random'")
    assert list(both["column"]) == ["lr", "kind", "leaked", "knows"] and set(both["n"]) == {REPEATS}


def test_recall_rises_to_one_with_the_shortlist(found: results.Forecasting) -> None:
    rows = found.rankings.query("statistic == 'recall_of_best' and split == 'random'")
    for _, own in rows.groupby(["forecaster"]):
        values = own.sort_values("k")["value"].to_numpy()
        assert (np.diff(values) >= 0).all() and values[-1] == 1 and len(values) == 16


def test_leaderboards_have_a_row_for_each_forecaster_and_a_readable_form(found: results.Forecasting) -> None:
    for name, make in leaderboards.TABLES.items():
        table = make(found)
        assert len(table), name
        assert list(leaderboards.readable(table))[-1] in (*table.columns, "s")
    whole = leaderboards.accuracies(found)
    assert whole["forecaster"].iloc[0] == "chance" and list(whole.columns[-3:]) == ["s", "s_low", "s_high"]
    own = whole.query("split == 'random' and forecaster == 'knows'").iloc[0]
    assert own["s"] == chosen(found.forecasts.query("split == 'random'"), "knows").accuracy


def test_printed_numbers_are_set_beside_their_own(found: results.Forecasting) -> None:
    table = found.comparison
    assert list(table["follows"])[:3] == [True, False, True]
    assert table["difference"].iloc[0] == pytest.approx(-0.009)
    unknown = found.published.assign(target="t")
    with pytest.raises(
        StudyError, match=r"accuracy of forecaster knows, target t, .* 0 numbers in this study, expected 1"
    ):
        published_numbers.compare(unknown, found.forecasts, found.rankings, found.importance)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("a,accuracy,p,,s,random,all,gt,,=,high,0.01", "row 1: column 'printed': found 'high', expected a number"),
        ("a,accuracy,p,,s,random,all,gt,,~,0.5,0.01", "row 1: column 'relation': found '~', allowed: =, >=, <="),
        ("a,error,p,,s,random,all,gt,,=,0.5,0.01", "row 1: column 'statistic': found 'error', allowed: accuracy, sd"),
    ],
)
def test_printed_numbers_that_cannot_be_read_are_refused(row: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "printed.csv"
    path.write_text(",".join(published_numbers.COLUMNS) + f"\n{row}\n")
    with pytest.raises(StudyError) as caught:
        published_numbers.read(path)
    assert str(caught.value).startswith(f"{path}, {line}")


MEASURED = ["indicator", "combination", "comparer"]
CHECKS = (
    "repeated_variants", "outlying_variants", "variant_precision", "tied_variants", "label_noise",
    "confounded_indicators", "gains_over_config", "printed_numbers",
)  # fmt: skip


def findings(found: results.Forecasting | None, *names: str) -> list[dict[str, Any]]:
    empty = pd.DataFrame()
    material = AuditInputs(empty, empty, [], [], [], {}, [found] if found else [])
    return [one for name in names for one in inputs.findings_of(material, registry.module(audit_modules, name))]


def test_checks_of_cohorts_are_silent_without_any() -> None:
    assert findings(None, *CHECKS) == []


def test_planted_flaws_are_found(found: results.Forecasting) -> None:
    (repeated,) = findings(found, "repeated_variants")
    assert repeated["severity"] == "error" and "bases b5 and b25 have the same 3 indicators" in repeated["evidence"]
    assert "differ in kind" in repeated["evidence"]
    (outlying,) = findings(found, "outlying_variants")
    assert outlying["severity"] == "warning" and outlying["evidence"].startswith("base b9: leaked is -29")
    (precision,) = findings(found, "variant_precision")
    assert "knows has 3 decimals in" in precision["evidence"] and "lr 4 and 5" in precision["evidence"]
    (confounded,) = findings(found, "confounded_indicators")
    assert confounded["evidence"].startswith("leaked forecasts through lr: s 0.")
    (other,) = findings(found, "printed_numbers")
    assert other["evidence"].startswith(
        "Table 1: 2 of 3 numbers follow from the table, these do not: accuracy by knows on s: printed"
    )
    ties = findings(found, "tied_variants")
    assert ties[0]["severity"] == "note" and "1 in leaked" in ties[0]["evidence"]
    (gain,) = findings(found, "gains_over_config")
    rows = found.forecasts.query("split == 'random' and subset == 'all' and ties == 'half' and kind in @MEASURED")
    assert (
        gain["value"] == pytest.approx(rows["gain"].max())
        and (gain["severity"] == "note") == (rows["gain_low"] > 0).any()
    )
    (noise,) = findings(found, "label_noise")
    assert noise["severity"] == "warning" and noise["value"] == pytest.approx(noisy_share(found))


@pytest.mark.parametrize(("published", "severity"), [(True, "warning"), (False, "note")])
def test_a_tie_rule_weighs_where_published_numbers_go_by_it(
    published: bool, severity: str, found: results.Forecasting
) -> None:
    """The order of the table decides a tie under rule `gt` alone, which nothing but a comparison with print shows."""
    rows = found.forecasts.copy()
    rows.loc[(rows["ties"] == "gt") & (rows["forecaster"] == "knows"), "accuracy"] += 0.1
    own = dataclasses.replace(found, forecasts=rows, published=found.published if published else None)
    counted, moved = findings(own, "tied_variants")
    assert counted["severity"] == "note" and moved["severity"] == severity and "knows on s" in moved["evidence"]


def noisy_share(found: results.Forecasting) -> float:
    """Pairs closer than a standard error, one after the other."""
    values = list(found.cohort.rows["s"])
    errors = [(p * (1 - p) / 100 + p * (1 - p) / 400) ** 0.5 / 2 for p in values]
    close = [
        abs(values[i] - values[j]) < (errors[i] ** 2 + errors[j] ** 2) ** 0.5
        for i in range(40)
        for j in range(i + 1, 40)
    ]
    return sum(close) / len(close)


def test_standard_error_of_a_mean_of_accuracies_by_simulation() -> None:
    generator = np.random.default_rng(0)
    draws = (generator.binomial(100, 0.7, 20000) / 100 + generator.binomial(400, 0.7, 20000) / 400) / 2
    (error,) = label_noise.standard_error(np.array([70.0]), [100, 400], 100)
    assert error == pytest.approx(100 * draws.std(), rel=0.02)


@pytest.mark.slow
def test_a_sound_table_raises_no_warning(tmp_path: Path) -> None:
    generator = np.random.default_rng(12)
    own = generator.normal(size=40)
    table, settings = simulated(tmp_path, p=own + 0.3 * generator.normal(size=40), s=0.5 + 0.1 * own)
    settings |= {"test_rows": {"s": [10**6]}}
    sound = results.Forecasting("c", settings, table, **whole(table, settings), published=None)
    assert {one["severity"] for one in findings(sound, *CHECKS)} <= {"note"}


@pytest.mark.parametrize(
    ("values", "apart"),
    [
        ([*range(20, 40), 0.0], [20]),  # 20 apart from a bulk of 19
        ([*range(20, 40), 0.5, 0.0], [20, 21]),  # two beside each other do not hide one another
        ([*range(20, 40), 80.0], [20]),
        ([*range(20, 40), 10.0], []),
        ([*[0.0] * 11, *[100.0] * 10], []),  # two groups
        ([5.0] * 20 + [6.0], [20]),
    ],
)
def test_single_values_that_stand_apart(values: list[float], apart: list[int]) -> None:
    assert np.flatnonzero(outlying_variants.outlying(np.array(values, dtype=float))).tolist() == apart


def test_closer_pairs_are_harder(tmp_path: Path) -> None:
    """With normal noise the accuracy of a pair is the chance that noise does not reverse it."""
    generator = np.random.default_rng(0)
    truth = generator.normal(size=40)
    accuracies = []
    for _ in range(10):
        rows = unfitted_rows(simulated(tmp_path, p=truth + generator.normal(size=40), s=truth)[0])
        accuracies.append([chosen(rows, "p", f"gap_{k}").accuracy for k in (1, 5)])
    difference = pairs.differences(truth)
    fifths = pairs.gaps(difference)
    expected = [norm.cdf(np.abs(difference[fifths[f"gap_{k}"]]) / 2**0.5).mean() for k in (1, 5)]
    assert np.mean(accuracies, axis=0) == pytest.approx(expected, abs=0.05)


# --- config -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"path": "../variants.csv"},
            "cohorts/c/path: '../variants.csv' leaves the study's folder; expected a file inside it",
        ),
        ({"path": "/etc/passwd"}, "cohorts/c/path: '/etc/passwd' leaves the study's folder"),
        ({"path": "other.csv"}, None),
        ({"targets": ["p"]}, "cohorts/c/targets: 'p' is already in use; allowed: columns named once"),
        ({"indicators": ["chance"]}, "cohorts/c/indicators: 'chance' is already in use"),
        ({"combinations": {"c": {"z": 1}}}, "cohorts/c/combinations/c: 'z' is not known; allowed: p"),
        ({"contrasts": [["p"]]}, "cohorts/c/contrasts/0: 'p' is not known; allowed: lr, kind"),
        ({"test_rows": {"p": [5]}}, "cohorts/c/test_rows: 'p' is not known; allowed: s"),
    ],
)
def test_a_bad_block_is_refused_in_one_line(changes: dict, line: str | None, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, configs() | {"p": np.arange(40.0), "s": np.arange(40.0)})
    config = block("variants.csv") | changes
    with pytest.raises(StudyError) as caught:
        config_checks.read({"cohorts": {"c": config}})
    expected = (
        f"config.yaml: {line}" if line else "other.csv: missing; expected the CSV file that `path` of the cohort names"
    )
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)


def test_joint_intervals_hold_possible_accuracies_alone() -> None:
    """Two indicators of five bases, .4 above and .1 below chance: none is right on more than all pairs or on fewer than none."""
    drawn = np.random.default_rng(0).normal([0.4, -0.1], [0.2, 0.03], (500, 2))
    both = np.ones(2, dtype=bool)
    whole = forecast_accuracy._jointly(np.array([0.4, -0.1]), drawn, both, 5, 0.95, np.inf)
    cut = forecast_accuracy._jointly(np.array([0.4, -0.1]), drawn, both, 5, 0.95, 0.5)
    assert whole[0][0] < -0.1 and whole[0][1] > 0.9
    assert cut[0] == (max(-0.5, whole[0][0]), 0.5, whole[0][2])
    assert cut[1] == whole[1] and whole[1][0] > -0.5


@pytest.mark.parametrize(("end", "expected"), [(0.0, 0.5), (-0.5, 0.0), (None, None)])
def test_an_end_at_chance_is_one_half(end: float | None, expected: float | None) -> None:
    assert forecast_accuracy._above_chance(end) == expected
