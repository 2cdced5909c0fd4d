"""Tables say what the study's files say: numbers by hand."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pytest

from workflow import registry
from workflow.errors import StudyError
from workflow.planning import config_checks
from workflow.released import renaming, runs
from workflow.report import summaries
from workflow.report.summaries import StudyTables
from workflow.storage import tables
from workflow.storage.markdown import markdown
from workflow.study import config as configs

CONFIG = {
    "families": {
        "tiny": {
            "source": "trained",
            "steps": [0, 20],
            "pretraining": {"corpus": "miniworld", "save": [0, 20], "steps": 20, "batch": 4, "sequence": 64},
        }
    },
    "recipes": {"full": {}},
    "models": [{"train": ["mini_inference"], "recipes": ["full"], "steps": [20]}],
    "suites": {
        "scored": {"tests": ["mini_inference", "mini_inference_ood"]},
        "written": {"tests": ["mini_inference"], "labels": "generate", "protocol": "published"},
    },
}


def score(train, test, value, step=20, suite="scored", n=50, **keys):
    own = {"format": "none", "recipe": "none"} if train == "none" else {"format": "default", "recipe": "full"}
    return {
        **{"family": "tiny", "step": step, "train": train, **own, "seed": 0, "suite": suite, "test": test},
        **{"test_format": "default", "shots": 0, "metric": "accuracy", "value": value, "error": 0.1},
        **{"low": value - 0.2, "high": value + 0.2, "n": n, **keys},
    }


SCORES = [
    score("none", "mini_inference", 0.3, step=0),
    score("none", "mini_inference", 0.35),
    score("none", "mini_inference", 0.33, metric="majority"),
    score("mini_inference", "mini_inference", 0.9),
    score("mini_inference", "mini_inference", 0.7, suite="written", n=40),
    score("mini_inference", "mini_inference_ood", 0.6),
    score("mini_inference", "mini_summary", 0.1, metric="rouge_l"),
    score("none", "mini_inference", 0.5, family="other", step=5, suite="published", n=None),
]


def frame(rows, schema):
    return tables.frame(pa.Table.from_pylist(rows, schema=schema))


@pytest.fixture
def material(tmp_path):
    """The files of a small study, and what its config says."""

    def make(scores=SCORES, analysis=(), config=CONFIG):
        columns = pa.schema([pa.field("analysis", pa.string()), *tables.ANALYSIS])
        return StudyTables(
            config_checks.read(config),
            frame(scores, tables.IMPORTED),
            frame(list(analysis), columns),
            sorted((tmp_path / "bases").rglob("base.json")),
            sorted((tmp_path / "tasks").glob("*.parquet")),
            tmp_path / "benchmarks",
        )

    return make


def made(name, material):
    return registry.module(summaries, name).summarise(material)


def test_prediction_methods_stand_side_by_side_at_the_last_step(material):
    table = made("prediction_methods", material())
    columns = ["family", "step", "test", "train", "suite", "protocol", "method", "value", "n"]
    assert [tuple(row) for row in table[columns].astype(object).where(table[columns].notna(), None).to_numpy()] == [
        ("other", 5, "mini_inference", "none", "published", "released", "released", 0.5, None),
        ("tiny", 20, "mini_inference", "mini_inference", "scored", "sound", "score", 0.9, 50),
        ("tiny", 20, "mini_inference", "mini_inference", "written", "published", "generate", 0.7, 40),
        ("tiny", 20, "mini_inference", "none", "scored", "sound", "score", 0.35, 50),
        ("tiny", 20, "mini_inference_ood", "mini_inference", "scored", "sound", "score", 0.6, 50),
    ]


def test_imported_labels_were_predicted_as_their_release_says(material, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "input_files", lambda *asked: [])
    imports = {"amuro": {"reader": "amuro_char", "path": str(tmp_path)}}
    own = {**CONFIG["suites"], "published": {"tests": ["mini_inference"], "labels": "constrained"}}
    scores = [*SCORES, score("none", "mini_inference", 0.5, family="other", step=5, suite="ranked", n=None)]
    table = made("prediction_methods", material(scores, config={**CONFIG, "imports": imports, "suites": own}))
    imported = table[table["family"] == "other"].set_index("suite")[["protocol", "method"]]
    assert imported.to_dict("index") == {
        "published": {"protocol": "published", "method": "score"},
        "ranked": {"protocol": "released", "method": "released"},
    }


def test_datasets_say_what_each_is_for(material, tmp_path):
    row = {"id": "a", "fields": [], "choices": [], "leads": [], "answer": "x", "gold": None, "turns": []}
    rows = [{**row, "split": split} for split in ("train", "train", "test")]
    tables.write(rows, tables.EXAMPLES, tmp_path / "tasks" / "mini_inference.parquet")
    table = made("datasets", material([*SCORES, score("none", "alpaca", 0.1, metric="win_rate")])).set_index("task")
    assert list(table.index) == ["mini_inference", "mini_inference_ood", "mini_summary", "alpaca"]
    assert list(table["role"]) == [
        "tuned on", "out of domain of mini_inference", "transfer", "tested",
    ]  # fmt: skip
    found = table.loc["mini_inference"]
    assert (found["train_rows"], found["test_rows"], found["scored"], found["metric"]) == (2, 1, 50, "accuracy")
    assert table.loc["alpaca"].drop(["role", "scored"]).isna()[["kind", "hub", "metric"]].all()


def test_datasets_give_the_hub_s_sizes_where_nothing_is_prepared(material):
    table = made("datasets", material([score("none", "mnli", 0.3), score("tulu", "boolq", 0.6)])).set_index("task")
    assert (table.loc["mnli", "test_rows"], table.loc["mnli", "hub"]) == (9815, "nyu-mll/glue")
    assert table.loc["mnli", "labels"] == "entailment, neutral, contradiction"
    assert table.loc["boolq", "role"] == "after tulu" and pd.isna(table.loc["tulu", "metric"])


def test_templates_are_those_in_use(material):
    rows = [
        score("none", "paws", 0.3),
        score("none", "qqp", 0.3, test_format="io"),
        score("tulu", "stsb", 0.3),
        score("none", "gsm", 0.3),
    ]
    assert made("templates", material(rows)).to_numpy().tolist() == [
        ["default", "paraphrase", "paws, stsb",
         "### Input_1: {sentence1}\n ### Input_2: {sentence2}\n ### Paraphrase Classification: "],
        ["io", "paraphrase", "qqp", "{sentence1} {sentence2}"],
    ]  # fmt: skip


def benchmark(folder, job, seconds):
    path = folder / "benchmarks" / f"{job}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t-\t1.0\n", encoding="utf-8")


def test_gpu_hours_add_up_and_name_what_was_not_measured(material, tmp_path):
    base, tuned = "family=tiny/step=20", "train=mini_inference/format=default/recipe=full/seed=0"
    plain = "train=none/format=none/recipe=none/seed=0"
    benchmark(tmp_path, "pretrain/family=tiny/step=20", 3600)
    benchmark(tmp_path, f"predict/family=tiny/step=0/{plain}/suite=scored/tests=all", 900)
    benchmark(tmp_path, f"predict/{base}/{plain}/suite=scored/tests=all", 1800)
    benchmark(tmp_path, f"predict/{base}/{tuned}/suite=scored/tests=all", 360)
    benchmark(tmp_path, f"predict/family=tiny/step=10/{plain}/suite=scored/tests=all", 7200)  # of no cell of the study
    table = made("gpu_hours", material()).fillna({"train": "", "suite": ""}).set_index(["stage", "train", "suite"])
    assert table["hours"].dropna().to_dict() == pytest.approx(
        {
            ("pretrain", "", ""): 1.0,
            ("predict", "none", "scored"): 0.75,
            ("predict", "mini_inference", "scored"): 0.1,
            ("all", "", ""): 1.85,
        }
    )
    assert list(table.index[table["hours"].isna()]) == [
        ("tune", "mini_inference", ""), ("predict", "none", "written"), ("predict", "mini_inference", "written"),
    ]  # fmt: skip
    config = {**CONFIG, "suites": {**CONFIG["suites"], "scored": {**CONFIG["suites"]["scored"], "gpus": 4}}}
    spread = made("gpu_hours", material(config=config))
    assert spread["hours"].iloc[-1] == pytest.approx(1 + 4 * 0.85)
    stages = table.droplevel(["train", "suite"])
    assert stages.loc["tune", ["jobs", "measured", "unmeasured"]].tolist() == [1, 0, f"{base}/{tuned}"]
    assert stages.loc["all", ["jobs", "measured"]].tolist() == [9, 4]


def test_families_say_where_from_how_far_and_how_large(material, tmp_path):
    for step in (0, 20):
        path = tmp_path / "bases" / str(step) / "base.json"
        path.parent.mkdir(parents=True)
        files = {"a.safetensors": {"bytes": 100 + step}, "b.safetensors": {"bytes": 5}, "config.json": {"bytes": 9}}
        path.write_text(
            json.dumps({"family": "tiny", "step": step, "source": "trained", "files": files}), encoding="utf-8"
        )
    table = made("families", material()).set_index("family")
    found = table.loc["tiny"]
    assert (found["source"], found["steps"], found["listed"]) == ("trained", 2, "0, 20")
    assert (found["tokens"], found["weights_bytes"]) == (20 * 4 * 64, 125)
    assert table.loc["other", "source"] == "imported" and pd.isna(table.loc["other", "weights_bytes"])


def analysed(name, value, **keys):
    place = {"family": "olmo", "suite": "s", "format": "default", "test_format": "default", "shots": 0}
    numbers = {"estimator": "difference_of_means", "value": value, "low": value, "high": value, "n": 3}
    return {"analysis": name, "group": "known", **place, **numbers, **keys}


@pytest.mark.parametrize("name", ["performance_difference", "ratio_of_change"])
def test_analyses_are_listed_by_step_with_missing_values_last(material, name):
    rows = [
        analysed(name, None, step=1), analysed(name, 0.2, step=30), analysed(name, 0.1, step=4),
        analysed("performance", 0.9, step=4),
    ]  # fmt: skip
    table = made(name, material(analysis=rows))
    assert table[["step", "value"]].astype(object).where(table[["step", "value"]].notna(), None).to_numpy().tolist() == [
        [4, 0.1], [30, 0.2], [1, None],
    ]  # fmt: skip
    assert "p_value" not in table and "train" not in table


@pytest.mark.parametrize("name", ["performance_difference", "ratio_of_change"])
def test_an_analysis_without_rows_is_an_error(material, name):
    with pytest.raises(StudyError, match=rf"^config.yaml: summaries: '{name}' has no row to show"):
        made(name, material())


def test_markdown_rounds_and_puts_intervals_behind_values():
    table = pd.DataFrame(
        {
            "test": ["a|b", "ends in a space "], "value": [0.12345, float("nan")], "low": [0.1, None], "high": [0.2, None],
            "hours": [1234.5, 0.00123], "n": pd.array([5, None], dtype="Int64"),
        }
    )  # fmt: skip
    assert markdown(table).splitlines() == [
        "| test | value | hours | n |",
        "| --- | --- | --- | --- |",
        "| a\\|b | 0.123 [0.100, 0.200] | 1.23e+03 | 5 |",
        "| `ends in a space ` | – | 0.00123 | – |",
    ]


# What a config may say


@pytest.mark.parametrize("name", registry.modules(summaries))
def test_every_table_says_what_it_reads_and_needs(name):
    module = registry.module(summaries, name)
    assert set(module.READS) <= set(configs.schema()["properties"])
    assert set(module.NEEDS) <= set(config_checks.NEEDED)


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ({"summaries": ["dataset"]}, "summaries: 'dataset' is not known; allowed: datasets, families, "),
        (
            {"summaries": ["performance_difference"]},
            "groups: found none, expected a group, which 'performance_difference' of summaries needs",
        ),
        ({"overlays": {"tiniest": "other"}}, "overlays: 'tiniest' is not known; allowed: tiny"),
        (
            {"overlays": {"tiny": "other"}},
            "overlays/tiny: 'other' is not allowed; allowed: a family of imported scores",
        ),
    ],
)
def test_a_bad_entry_is_one_line(entries, line):
    with pytest.raises(StudyError, match=f"^config.yaml: {line}"):
        config_checks.read(CONFIG | entries)


# Imported families under other names


def test_imported_families_are_renamed():
    rows = [{"family": "a", "step": 1}, {"family": "b", "step": 2}]
    found = renaming.renamed("p", rows, {"a": "a-published"}, ["a"])
    assert [row["family"] for row in found] == ["a-published", "b"]


def test_a_name_that_no_imported_family_has_is_an_error():
    with pytest.raises(StudyError, match=r"^p: found no family 'c'; allowed: a, b$"):
        renaming.renamed("p", [{"family": "a"}, {"family": "b"}], {"c": "d"}, [])


@pytest.mark.parametrize("names", [{}, {"b": "a"}])
def test_an_imported_family_of_the_study_s_own_name_is_an_error(names):
    line = "p: imported family 'a' has the name of a family of this study; expected another name"
    with pytest.raises(StudyError, match=f"^{line}$"):
        renaming.renamed("p", [{"family": "b" if names else "a"}], names, ["a"])


def test_two_families_that_get_one_name_are_an_error():
    with pytest.raises(StudyError, match=r"^p: families 'a', 'b' are both 'a' here; expected one name for each$"):
        renaming.renamed("p", [{"family": "a"}, {"family": "b"}], {"b": "a"}, [])
