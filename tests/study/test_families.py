"""Families in tables: what each row becomes, what is said of it, what is refused; families that go on from others."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import running
from running import SMOKE

from workflow.errors import StudyError
from workflow.planning import config_checks
from workflow.study import families, grid

TABLE = """id,objective,mix,learning_rate,length,tag,seed
1,clm,dc-0,1e-3,,,0
2,sc,dc-1,2.5e-4,"[0.25, 0.75]",true,1
"""
MIXES = {"dc-0": {"stories": 1, "lists": 3}, "dc-1": {"stories": 1}}
SHARED = SMOKE["families"]["tiny"]["pretraining"]


def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str = TABLE, **family: Any) -> dict[str, Any]:
    """The smoke study with a family of that table beside its own."""
    (tmp_path / "variants.csv").write_text(table, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    config = copy.deepcopy(SMOKE)
    own = {"source": "trained", "table": "variants.csv", "steps": [20], "mixes": MIXES, "pretraining": SHARED, **family}
    config["families"]["v"] = own
    return config


def test_each_row_is_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = config_checks.read(study(tmp_path, monkeypatch))["families"]
    assert list(found) == ["tiny", "v-1", "v-2"]
    first, second = (found[name]["pretraining"] for name in ("v-1", "v-2"))
    assert first == found["tiny"]["pretraining"] | {"mix": MIXES["dc-0"], "learning_rate": 1e-3}
    own = {
        "objective": "sc",
        "mix": MIXES["dc-1"],
        "learning_rate": 2.5e-4,
        "length": [0.25, 0.75],
        "tag": True,
        "seed": 1,
    }
    assert second == found["tiny"]["pretraining"] | own
    assert found["v-2"]["steps"] == [20] and found["v-2"]["source"] == "trained"


def test_the_grid_knows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = grid.bases(config_checks.read(study(tmp_path, monkeypatch)))
    assert list(bases.itertuples(index=False, name=None)) == [("tiny", 0), ("tiny", 20), ("v-1", 20), ("v-2", 20)]


def test_fields_say_how_families_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = study(tmp_path, monkeypatch)
    config["families"]["tiny"]["fields"] = {"mix": "natural", "source": "here"}
    table = families.fields(config_checks.read(config)["families"]).set_index("family")
    assert table.to_dict("index") == {
        "tiny": {
            "objective": "clm", "mix": "natural", "learning_rate": 1e-3, "length": "none", "tag": "false", "seed": 0,
            "source": "here",
        },
        "v-1": {
            "objective": "clm", "mix": "dc-0", "learning_rate": 1e-3, "length": "none", "tag": "none", "seed": 0,
            "source": "none",
        },
        "v-2": {
            "objective": "sc", "mix": "dc-1", "learning_rate": 2.5e-4, "length": "[0.25, 0.75]", "tag": "true", "seed": 1,
            "source": "none",
        },
    }  # fmt: skip
    assert table["learning_rate"].dtype == float


BAD_TABLES = {
    "no such objective": (
        "id,objective\n1,mlm\n",
        "families/v-1/pretraining/objective: 'mlm' is not allowed; allowed: clm",
    ),
    "no such key": ("id,objectiv\n1,clm\n", "families/v-1/pretraining: unknown key 'objectiv'; allowed: batch,"),
    "no such mix": ("id,mix\n1,dc-7\n", "variants.csv, row 1: mix 'dc-7' is not known; allowed: dc-0, dc-1"),
    "an id twice": ("id,seed\n1,0\n1,1\n", "families/v: 'v-1' appears twice; expected each name once"),
    "no id": ("seed\n1\n", "variants.csv: expected rows with a column 'id'"),
    "a blank id": ("id,seed\n1,0\n,1\n", "variants.csv, row 2: column 'id' is blank, expected a name"),
    "no row": ("id,seed\n", "variants.csv: expected rows with a column 'id'"),
    "a cell too many": ("id,seed\n1,0,5\n", "variants.csv, row 1: found 3 cells, expected 2 as in the header"),
    "no end of a quote": ('id,seed\n"1,0\n', "variants.csv: not CSV in UTF-8: unexpected end of data"),
    "a name of no path": ("id,seed\nA/B,0\n", "families: 'v-A/B' is not allowed; allowed: names that match"),
}


@pytest.mark.parametrize(("table", "line"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_bad_table_is_refused(table: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudyError) as caught:
        config_checks.read(study(tmp_path, monkeypatch, table))
    assert str(caught.value).removeprefix("config.yaml: ").startswith(line)


@pytest.mark.parametrize("path", ["../variants.csv", "/variants.csv"])
def test_a_table_outside_the_study_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudyError, match="points outside the study's folder; expected a CSV file inside it"):
        config_checks.read(
            study(tmp_path, monkeypatch, table=TABLE) | {"families": {"v": {"source": "trained", "table": path}}}
        )


def going_on(**starts: dict[str, Any] | None) -> dict[str, Any]:
    """The smoke study with families that go on from others."""
    config = copy.deepcopy(SMOKE)
    for name, start in starts.items():
        own = SHARED | ({"continue_from": start} if start else {})
        config["families"][name] = {"source": "trained", "pretraining": own}
    return config


def test_a_family_may_go_on_from_a_base_of_another() -> None:
    found = config_checks.read(going_on(more={"family": "tiny", "step": 20}))
    assert found["families"]["more"]["pretraining"]["continue_from"] == {"family": "tiny", "step": 20}


@pytest.mark.slow
def test_what_goes_on_from_a_base_runs_after_it(smoke: Path, tmp_path: Path) -> None:
    """In the smoke study: its pretraining, the new family's two bases, and what is measured and predicted of them."""
    place = shutil.copytree(smoke, tmp_path / "place")
    running.configure(place, going_on(more={"family": "tiny", "step": 20}))
    jobs = running.planned(place, "results/indicators.parquet")
    assert jobs == {"pretrain": 1, "fetch": 3, "measure": 3, "gather": 1}
    ended = running.run(place, "resources/pretrained/family=more")
    assert ended.returncode == 0, ended.stderr
    weights = [
        place / f"study/resources/pretrained/family={name}" for name in ("tiny/step=20", "more/step=0", "more/step=10")
    ]
    first, same, later = ((folder / "model.safetensors").read_bytes() for folder in weights)
    assert first == same != later


@pytest.mark.slow
def test_a_table_of_families_is_planned(smoke: Path, tmp_path: Path) -> None:
    place = shutil.copytree(smoke, tmp_path / "place")
    (place / "study/variants.csv").write_text(TABLE, encoding="utf-8")
    config = copy.deepcopy(SMOKE)
    config["families"]["v"] = {"source": "trained", "table": "variants.csv", "mixes": MIXES, "pretraining": SHARED}
    running.configure(place, config)
    jobs = running.planned(place, "results/indicators.parquet")
    assert jobs == {"pretrain": 2, "fetch": 6, "measure": 6, "gather": 1}


BAD_STARTS = {
    "no such family": (
        {"more": {"family": "large", "step": 20}},
        "more/pretraining/continue_from/family: 'large' is not",
    ),
    "no such step": ({"more": {"family": "tiny", "step": 7}}, "more/pretraining/continue_from/step: 7 is not known"),
    "in a circle": (
        {"a": {"family": "b", "step": 20}, "b": {"family": "a", "step": 20}},
        "a/pretraining/continue_from: a -> b -> a is a cycle; allowed: a family or folder that does not lead back here",
    ),
    "neither": ({"more": {"step": 20}}, "more/pretraining/continue_from: key 'family' is missing"),
}


@pytest.mark.parametrize(("starts", "line"), BAD_STARTS.values(), ids=BAD_STARTS)
def test_a_bad_start_is_refused(starts: dict[str, Any], line: str) -> None:
    with pytest.raises(StudyError) as caught:
        config_checks.read(going_on(**starts))
    assert str(caught.value).startswith(f"config.yaml: families/{line}")


BAD_MIXTURES = {
    "weights of another objective": (
        {"weights": {"sc": 1}}, "weights: {'sc': 1} is not allowed; allowed: one for each of clm"
    ),
    "no weight": ({"objective": "sc+clm", "weights": {"sc": 0, "clm": 0}}, "weights: {'sc': 0, 'clm': 0} is not allowed"),
    "an empty mix": ({"mix": {"lists": 0}}, "mix: {'lists': 0} is not allowed; allowed: at least one above 0"),
    "a band upside down": ({"length": [0.75, 0.25]}, "length: [0.75, 0.25] is not allowed; allowed: a lower quantile, then"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "line"), BAD_MIXTURES.values(), ids=BAD_MIXTURES)
def test_a_bad_mixture_is_refused(settings: dict[str, Any], line: str) -> None:
    config = copy.deepcopy(SMOKE)
    config["families"]["tiny"]["pretraining"] |= settings
    with pytest.raises(StudyError) as caught:
        config_checks.read(config)
    assert str(caught.value).startswith(f"config.yaml: families/tiny/pretraining/{line}")
