"""Families in tables: what each row becomes, what is said of it, what is refused; families that go on from others."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import running
from models.test_checkpoints import checkpoint  # noqa: F401
from running import SMOKE

from workflow.errors import StudyError
from workflow.models import checkpoints
from workflow.planning import config_checks
from workflow.storage.files import write_json
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
    assert jobs == {"pretrain": 3, "fetch": 3, "measure": 3, "gather": 1}
    ended = running.run(place, "resources/pretrained/family=more/step=10")
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
    assert jobs == {"pretrain": 6, "fetch": 6, "measure": 6, "gather": 1}


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


# --- patterns with several names, tables of bases ---------------------------------------------------------------------------

OLMO = [
    *(f"stage1-step{step}-tokens{step}B" for step in (1, 2, 3, 4)),
    *(f"stage2-ingredient{number}-step{step}" for number in (1, 2, 10) for step in (2, 4)),
    "main",
]


def hosted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refs: list[str] = OLMO, **family: Any) -> dict[str, Any]:
    """The smoke study with a family of a repository whose revisions were looked up before."""
    record = tmp_path / "resources/revisions/lab/olmo.json"
    write_json({"repo": "lab/olmo", "revisions": {name: [name] for name in refs}}, record)
    monkeypatch.chdir(tmp_path)
    config = copy.deepcopy(SMOKE)
    config["families"]["olmo"] = {"source": "hub", "repo": "lab/olmo", **family}
    return config


def test_each_value_of_a_name_in_a_pattern_is_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry for OLMo 2: its first stage, and each ingredient of its second, are runs that count their steps each from 0."""
    config = hosted(tmp_path, monkeypatch, pattern="stage{stage}-step{step}", steps="all")
    config["models"] = [{"train": ["mini_facts", "mini_inference"], "recipes": ["full"], "families": ["olmo", "tiny"]}]
    found = config_checks.read(config)
    assert {name: family.get("steps") for name, family in found["families"].items() if name != "tiny"} == {
        "olmo-stage1": [1, 2, 3, 4],
        "olmo-stage2-ingredient1": [2, 4],
        "olmo-stage2-ingredient10": [2, 4],
        "olmo-stage2-ingredient2": [2, 4],
    }
    second = found["families"]["olmo-stage2-ingredient2"]
    assert (second["pattern"], second["fields"]) == ("stage2-ingredient2-step{step}", {"stage": "2-ingredient2"})
    assert found["families"]["olmo-stage1"]["fields"] == {"stage": 1}
    assert found["models"][0]["families"] == [*[name for name in found["families"] if name != "tiny"], "tiny"]


def test_values_choose_among_those_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = "stage2-ingredient{ingredient}-step{step}"
    taken = {"pattern": pattern, "steps": {"every": 4}, "values": {"ingredient": [10, 1]}}
    found = config_checks.read(hosted(tmp_path, monkeypatch, **taken))["families"]
    assert {name: family["steps"] for name, family in found.items() if name != "tiny"} == {
        "olmo-ingredient1": [4], "olmo-ingredient10": [4],
    }  # fmt: skip
    with pytest.raises(StudyError, match="families/olmo/values/ingredient: '3' does not exist; allowed: 1, 2, 10"):
        config_checks.read(hosted(tmp_path, monkeypatch, **{**taken, "values": {"ingredient": [3]}}))


def test_a_repository_for_each_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PolyPythias: a repository for each size and seed; listed steps need no look at the hub."""
    family = {"repo": "lab/pythia-{size}-seed{seed}", "values": {"size": ["14m"], "seed": [1, 2]}, "steps": [0, "main"]}
    found = config_checks.read(hosted(tmp_path, monkeypatch, **family, main_step=143000))["families"]
    assert list(found) == ["tiny", "olmo-size14m-seed1", "olmo-size14m-seed2"]
    last = found["olmo-size14m-seed2"]
    assert (last["repo"], last["fields"]) == ("lab/pythia-14m-seed2", {"size": "14m", "seed": 2})
    assert "values" not in last


def test_folders_of_several_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:  # noqa: F811
    for name in ("seed0-step10", "seed0-step20", "seed1-step10", "logs"):
        shutil.copytree(checkpoint, tmp_path / "runs/wide" / name)
    config = hosted(tmp_path, monkeypatch)
    family = {
        "source": "folder",
        "path": "runs/{size}",
        "pattern": "seed{seed}-step{step}",
        "values": {"size": ["wide"]},
    }
    config["families"] = {"mine": family}
    found = config_checks.read(config)
    assert list(grid.bases(found).itertuples(index=False, name=None)) == [
        ("mine-wide-seed0", 10), ("mine-wide-seed0", 20), ("mine-wide-seed1", 10),
    ]  # fmt: skip
    config["families"]["mine"] |= {"steps": {"every": 20}}
    with pytest.raises(
        StudyError, match="families/mine-wide-seed1/steps/every: no step is a multiple of 20; there are 10"
    ):
        config_checks.read(config)


BASES = """id,step,repo,revision,tokens,size
a,100,lab/one,,2e8,14m
a,200,lab/one,abc123,4e8,14m
b,100,lab/two,step100,,70m
"""


def test_a_table_of_bases_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = hosted(tmp_path, monkeypatch)
    config["families"]["olmo"] = {"source": "hub", "table": "bases.csv"}
    (tmp_path / "bases.csv").write_text(BASES)
    found = config_checks.read(config)
    first, second = (found["families"][name] for name in ("olmo-a", "olmo-b"))
    assert first["repos"] == [
        {"step": 100, "repo": "lab/one"}, {"step": 200, "repo": "lab/one", "revision": "abc123"},
    ]  # fmt: skip
    assert (first["fields"], first["tokens"]) == ({"size": "14m"}, {100: 2e8, 200: 4e8})
    assert (second["fields"], "tokens" in second) == ({"size": "70m"}, False)
    assert len(grid.bases(found)) == len(grid.bases(config_checks.read(SMOKE))) + 3


def test_a_table_of_local_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:  # noqa: F811
    shutil.copytree(checkpoint, tmp_path / "runs/first")
    monkeypatch.chdir(tmp_path)
    config = {"suites": {"plain": {"tests": ["paws"]}}}
    config["families"] = {"mine": {"source": "folder", "table": "bases.csv", "path": "runs"}}
    (tmp_path / "bases.csv").write_text("step,folder\n7,first\n")
    found = config_checks.read(config)
    assert list(grid.bases(found).itertuples(index=False, name=None)) == [("mine", 7)]
    assert checkpoints.folder("mine", found["families"]["mine"], 7) == Path("runs/first")


BAD_BASES = {
    "no step": ("repo\nlab/one\n", "bases.csv: column 'step' is missing; found repo"),
    "no repository": ("step\n1\n", "bases.csv: column 'repo' is missing; found step"),
    "a blank repository": ("step,repo\n1,\n", "bases.csv, row 1: column 'repo' is blank"),
    "a word as step": ("step,repo\nlast,lab/one\n", "bases.csv, row 1: step is 'last', expected a whole number"),
    "a step twice": (
        "step,repo\n1,lab/one\n1,lab/two\n",
        "families/olmo/repos: a step is listed twice; expected each once: [1, 1]",
    ),
    "a name for some": (
        "id,step,repo\na,1,lab/one\n,2,lab/one\n",
        "bases.csv, row 2: column 'id' is blank, expected a name",
    ),
    "tokens below 0": (
        "step,repo,tokens\n1,lab/one,-4\n",
        "bases.csv, row 1: tokens is '-4', expected a number above 0",
    ),
    "a field that changes": (
        "step,repo,size\n1,a/b,1\n2,a/b,2\n",
        "bases.csv, row 2: size is 2, in an earlier row of this family 1",
    ),
    "a repository that is none": (
        "step,repo\n1,one\n",
        "families/olmo/repos/0/repo: 'one' is not allowed; allowed: names that",
    ),
    "no rows": ("step,repo\n", "bases.csv: expected rows with a column 'step'"),
}


@pytest.mark.parametrize(("table", "line"), BAD_BASES.values(), ids=BAD_BASES)
def test_a_bad_table_of_bases_is_refused(
    table: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = hosted(tmp_path, monkeypatch)
    config["families"]["olmo"] = {"source": "hub", "table": "bases.csv"}
    (tmp_path / "bases.csv").write_text(table)
    with pytest.raises(StudyError) as caught:
        config_checks.read(config)
    (found,) = str(caught.value).splitlines()
    assert found.removeprefix("config.yaml: ").startswith(line)


@pytest.mark.parametrize("folder", ["../first", "/first"])
def test_a_folder_of_a_table_that_leads_out_is_refused(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = hosted(tmp_path, monkeypatch)
    config["families"]["olmo"] = {"source": "folder", "table": "bases.csv"}
    (tmp_path / "bases.csv").write_text(f"step,folder\n1,{folder}\n")
    with pytest.raises(
        StudyError, match=f"bases.csv, row 1: folder '{folder}' points outside .; expected a folder inside it"
    ):
        config_checks.read(config)


BAD_PATTERNS = {
    "a repository without values": (
        {"repo": "lab/{size}"},
        "families/olmo/values: 'size' is missing; expected its values, since repo has it",
    ),
    "values of nothing": ({"values": {"seed": [1]}}, "families/olmo/values: 'seed' is in neither repo nor pattern"),
    "a name twice": (
        {"pattern": "{a}-{a}-step{step}", "steps": "all"},
        "families/olmo/pattern: '{a}-{a}-step{step}' is not allowed; expected a name with each",
    ),
    "names side by side": (
        {"pattern": "{a}{step}", "steps": "all"},
        "families/olmo/pattern: '{a}{step}' is not allowed; expected a name with text between {a} and {step}",
    ),
    "a pattern of nothing": (
        {"pattern": "era{era}-step{step}", "steps": "all"},
        "families/olmo/pattern: nothing in lab/olmo matches era{era}-step{step}",
    ),
    "more than there are": (
        {"pattern": "stage1-step{step}", "steps": {"count": 9}},
        "families/olmo/steps/count: 9 is not allowed; allowed: 4 or less",
    ),
    "spacing of a word": (
        {"steps": {"count": 2, "spacing": "even"}},
        "families/olmo/steps/spacing: 'even' is not allowed; allowed: log, linear",
    ),
    "every 0 steps": ({"steps": {"every": 0}}, "families/olmo/steps/every: 0 is not allowed; allowed: 1 or more"),
}


@pytest.mark.parametrize(("family", "line"), BAD_PATTERNS.values(), ids=BAD_PATTERNS)
def test_a_bad_pattern_is_refused(
    family: dict[str, Any], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StudyError) as caught:
        config_checks.read(hosted(tmp_path, monkeypatch, **{"steps": [1], **family}))
    (found,) = str(caught.value).splitlines()
    assert found.removeprefix("config.yaml: ").startswith(line)
