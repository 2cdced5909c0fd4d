"""The published study of indicators from its own table: what follows from it, what does not, what is odd in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import running
import yaml

from workflow import registry
from workflow.audit import checks as audit_modules
from workflow.forecasting import classifiers, cohorts, forecast_accuracy, forecasters, pairs, published_numbers, splits
from workflow.forecasting.cohorts import Cohort
from workflow.forecasting.results import Forecasting
from workflow.statistics import Resampling
from workflow.study import config

STUDY = running.ROOT / "studies" / "indicators-published"
CONFIG = yaml.safe_load((STUDY / "config.yaml").read_text(encoding="utf-8"))
BLOCK = config.validated(CONFIG)["cohorts"]["published"] | {"path": str(STUDY / "variants.csv")}
PRINTED = published_numbers.read(STUDY / "printed.csv")
TARGETS = ["sft_cms", "sft_rag", "sft_cbqa"]


@pytest.fixture(scope="module")
def table() -> Cohort:
    return cohorts.read(BLOCK)


@pytest.fixture(scope="module")
def rows(table: Cohort) -> pd.DataFrame:
    """What needs no fitting, over every pair."""
    asked = splits.asked(splits.rounds(table, "every_pair"))
    made = forecasters.unfitted(table, BLOCK["combinations"], 1)
    where = forecast_accuracy.setting(table, asked, Resampling(200, 0.95, 0))
    found = []
    for target in TARGETS:
        masks = forecast_accuracy.subsets(table, target, "every_pair", BLOCK["contrasts"])
        found += [{"split": "every_pair", **row} for row in forecast_accuracy.evaluate(made, target, masks, where)]
    return pd.DataFrame(found)


def test_the_default_study_forecasts_the_same_table() -> None:
    default = yaml.safe_load((running.ROOT / "config.yaml").read_text(encoding="utf-8"))["cohorts"]["published"]
    folder = STUDY.relative_to(running.ROOT).as_posix()
    own = CONFIG["cohorts"]["published"]
    assert default == own | {key: f"{folder}/{own[key]}" for key in ("path", "printed")}


def test_table_1_follows_under_gt_but_for_two_numbers(rows: pd.DataFrame) -> None:
    own = PRINTED[PRINTED["place"] == "Table 1"]
    table = published_numbers.compare(own, rows, rows, rows)
    other = table[~table["follows"]]
    assert len(table) == 24
    assert list(zip(other["forecaster"], other["target"], strict=True)) == [
        ("kshot_cbqa", "sft_cms"),
        ("kshot_cbqa", "sft_rag"),
    ]


def test_counts_of_the_study(table: Cohort, rows: pd.DataFrame) -> None:
    whole = rows[(rows["subset"] == "all") & (rows["ties"] == "gt")]
    assert set(whole["n_pairs"]) == {1225} and set(whole["n_bases"]) == {48}
    ties = [int((pairs.differences(table.values([name])[:, 0]) == 0).sum()) for name in (*TARGETS, *table.indicators)]
    assert ties == [5, 23, 19, 40, 28, 15, 3, 4]
    cells = rows["subset"].drop_duplicates()
    found = {
        field: cells.str.startswith(f"{field}=").sum() for field in ("objective", "mix", "domain_tag,length_filter")
    }
    assert found == {"objective": 21, "mix": 15, "domain_tag,length_filter": 15}
    features = classifiers.features(table.values(table.indicators), *pairs.first_second(50))
    assert features.shape == (1225, 20)


@pytest.mark.slow
def test_lightgbm_on_its_own_target_is_within_three_points_of_print(table: Cohort) -> None:
    columns = table.values(table.indicators)
    for target in TARGETS:
        labels = table.values([target])[:, 0]
        values = []
        for (fold,) in splits.rounds(table, "random"):
            told = classifiers.fit("lightgbm", columns, labels, fold.train).preferences()
            values.append(pairs.accuracy(told[fold.pairs], pairs.differences(labels)[fold.pairs], "gt"))
        own = PRINTED.query(
            "forecaster == 'lightgbm' and source == @target and target == @target and statistic == 'accuracy'"
        )
        assert np.mean(values) == pytest.approx(own.query("subset == 'all'")["printed"].item(), abs=0.03)


def test_the_table_names_its_own_anomalies(table: Cohort) -> None:
    own = Forecasting("published", BLOCK, table, *[pd.DataFrame()] * 3, None)
    names = ("repeated_variants", "outlying_variants", "variant_precision", "label_noise")
    found = [one["evidence"] for name in names for one in registry.module(audit_modules, name).check_cohort(own)]
    expected = [
        "bases 46 and 49 have the same 8 indicators and targets, though they differ in domain_tag",
        "bases 47 and 50 have the same 8 indicators and targets, though they differ in domain_tag",
        "base 4: kshot_cbqa is 0.121 where others are 15.95 to 21.7 and sft_cbqa is 0.15 where others are 34.9 to 39.1",
        "base 38: kshot_cbqa is 1.23 where others are 15.95 to 21.7; it has the lowest kshot_cms (51.58)",
        "kshot_rag has 3 decimals in 12 of 14 rows with lr 0.00075 and 0.001, and in none of 36",
        "kshot_cbqa has 3 decimals in 13 of 14 rows with lr 0.00075 and 0.001, and in none of 36",
        "sft_cms: 26% of 1225 pairs are closer than one standard error of a difference (0.77, from 16917 test rows)",
        "sft_rag: 40% of 1225 pairs",
        "sft_cbqa: 36% of 1225 pairs",
    ]
    assert [text.startswith(start) for text, start in zip(found, expected, strict=True)] == [True] * len(expected)


def test_every_statistic_of_print_is_a_number_of_the_study() -> None:
    assert not PRINTED.duplicated(["statistic", *published_numbers.KEYS, "column", "relation"]).any()
    assert set(PRINTED["forecaster"]) <= {
        *BLOCK["indicators"], *classifiers.MODELS, *(f"minmax:{name}" for name in BLOCK["combinations"])
    }  # fmt: skip


def test_levels_of_a_single_model_are_not_left_out(table: Cohort) -> None:
    """Each length filter is on one model and its twin; the rest has too few bases without them."""
    assert splits.rounds(table, "leave_out_length_filter") == []
    ((fold,),) = splits.rounds(table, "leave_out_domain_tag")
    assert list(np.flatnonzero(~fold.train) + 1) == [46, 47, 48, 49, 50] and fold.pairs.sum() == 3


@pytest.mark.slow
def test_the_study_asks_for_forecasts_alone(tmp_path: Path) -> None:
    place = running.lay_out(tmp_path, CONFIG)
    for name in ("variants.csv", "printed.csv"):
        (place / "study" / name).write_bytes((STUDY / name).read_bytes())
    assert running.planned(place) == {
        "pair": 1,
        "forecast": 7,
        "gather": 7,
        "tabulate": 1,
        "compare": 1,
        "audit": 1,
        "find": 1,
        "present": 1,
        "all": 1,
    }


@pytest.mark.slow
def test_a_small_study_runs(tmp_path: Path) -> None:
    """Twelve bases, two fields: every split, table and check for real."""
    generator = np.random.default_rng(0)
    lines = [f"b{n},{n % 3},{'AB'[n % 2]},{generator.normal():.4f},{generator.normal():.4f}" for n in range(12)]
    block = {"path": "bases.csv", "key": "id", "fields": ["lr", "kind"], "indicators": ["p"], "targets": ["s"]}
    place = running.lay_out(tmp_path, {"cohorts": {"small": block}, "statistics": {"resamples": 100}})
    (place / "study" / "bases.csv").write_text("\n".join(["id,lr,kind,p,s", *lines]))
    ended = running.run(
        place, "results/tables/forecast_accuracy_small.md", "results/audit.parquet", "results/pairs.parquet"
    )
    assert ended.returncode == 0, ended.stderr
    results = place / "study" / "results"
    found = pd.read_parquet(results / "forecasts.parquet")
    assert set(found["split"]) == {"every_pair", "random", "leave_out_lr", "leave_out_kind"}
    assert len(pd.read_parquet(results / "pairs.parquet")) == 66
    whole = found.query("split == 'every_pair' and subset == 'all' and ties == 'half' and forecaster == 'chance'")
    assert whole["accuracy"].item() == pytest.approx(0.5)
    part = results / "forecasts" / "cohort=small" / "split=random" / "part.parquet"
    assert b"lightgbm" in pq.read_schema(part).metadata[b"tunecast"]
    text = (results / "tables" / "forecast_accuracy_small.md").read_text()
    assert "| every_pair | all | chance | chance | 0.500 [" in text
