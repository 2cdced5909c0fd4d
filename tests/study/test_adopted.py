"""Models that were tuned elsewhere: which base each belongs to, and what is refused, in one line each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models.test_checkpoints import checkpoint  # noqa: F401
from safetensors.torch import save_file

from workflow.errors import StudyError
from workflow.models import tuned_elsewhere
from workflow.planning import config_checks
from workflow.settings import Base
from workflow.study import adopted, grid

SETTINGS = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "base_model_name_or_path": "/home/user/step100"}
BLOCK = {"path": "tuned", "pattern": "seed{seed}", "train": "mini_facts"}


def adapters(folder: Path, **settings: Any) -> Path:
    """A folder with the files of adapters."""
    folder.mkdir(parents=True)
    save_file({"base_model.model.layer.lora_A.weight": torch.ones(2, 2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(SETTINGS | settings))
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Path:  # noqa: F811
    """A folder of a study with two bases and one tuned model."""
    for step in (100, 200):
        shutil.copytree(checkpoint, tmp_path / f"steps/step{step}")
    adapters(tmp_path / "tuned/seed7")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study(block: dict[str, Any] = BLOCK, **changes: Any) -> dict[str, Any]:
    """The config of a study that adopts models."""
    families = {"mine": {"source": "folder", "path": "steps"}}
    return {"families": families, "adopted": {"lora": block}, "suites": {"plain": {"tests": ["mini_facts"]}}} | changes


def test_a_base_is_that_which_adapters_name(place: Path) -> None:
    found = config_checks.read(study())
    (model,) = adopted.models(found)
    keys = {"family": "mine", "step": 100, "train": "mini_facts", "format": "default", "recipe": "lora", "seed": 7}
    assert model.keys == keys and model.folder == Path("tuned/seed7")
    assert grid.models(found).to_dict("records")[-1] == keys
    assert len(grid.cells(found)) == 3 and not len(grid.tuned_here(found))


def test_a_table_states_what_no_name_tells(place: Path) -> None:
    adapters(place / "tuned/b", base_model_name_or_path=None)
    (place / "tuned.csv").write_text("folder,family,step,train,seed\nseed7,,,mini_facts,1\nb,mine,200,unknown,2\n")
    found = adopted.models(config_checks.read(study({"table": "tuned.csv", "path": "tuned"})))
    keys = [(model.keys["step"], model.keys["train"], model.keys["seed"]) for model in found]
    assert keys == [(100, "mini_facts", 1), (200, "unknown", 2)]


def test_steps_leave_models_out(place: Path) -> None:
    adapters(place / "tuned/seed8", base_model_name_or_path="step200")
    found = adopted.models(config_checks.read(study({**BLOCK, "steps": [200]})))
    assert [model.keys["seed"] for model in found] == [8]


def file(name: str, content: str) -> Callable[[Path], None]:
    """Give a file of the tuned model another content."""
    return lambda place: (place / "tuned/seed7" / name).write_text(content) and None


def setting(**settings: Any) -> Callable[[Path], None]:
    """Change the settings of the adapters."""
    return file("adapter_config.json", json.dumps(SETTINGS | settings))


def pickled(place: Path) -> None:
    """The weights are pickled."""
    (place / "tuned/seed7/adapter_model.safetensors").rename(place / "tuned/seed7/adapter_model.bin")


def linked(place: Path) -> None:
    """The weights are a link to a file elsewhere."""
    path = place / "tuned/seed7/adapter_model.safetensors"
    path.rename(place / "elsewhere")
    path.symlink_to(place / "elsewhere")


def cut(place: Path) -> None:
    """The weights are cut short."""
    path = place / "tuned/seed7/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def remote_code(place: Path, **keys: Any) -> None:
    """Full weights whose config asks for code."""
    shutil.rmtree(place / "tuned/seed7")
    shutil.copytree(place / "steps/step100", place / "tuned/seed7")
    path = place / "tuned/seed7/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModel": "code.Model"}}))


CONFIG, WEIGHTS = "tuned/seed7/adapter_config.json", "tuned/seed7/adapter_model.safetensors"
BAD_MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "another method": (setting(peft_type="IA3"), f"{CONFIG}: 'peft_type' is 'IA3'; allowed: LORA"),
    "another task": (setting(task_type="SEQ_CLS"), f"{CONFIG}: 'task_type' is 'SEQ_CLS'; allowed: CAUSAL_LM"),
    "code of a package": (
        setting(auto_mapping={"base_model_class": "Evil", "parent_library": "evil"}),
        f"{CONFIG}: 'auto_mapping' is 'evil'; allowed: a module of transformers; other code is never run",
    ),
    "another package": (setting(megatron_config={"a": 1}), f"{CONFIG}: 'megatron_config' is "),
    "repeated layers": (
        setting(layer_replication=[[0, 2]]),
        f"{CONFIG}: 'layer_replication' is [[0, 2]]; allowed: null",
    ),
    "a base that is changed": (
        setting(init_lora_weights="pissa"),
        f"{CONFIG}: 'init_lora_weights' is 'pissa'; allowed: true, false, gaussian or orthogonal",
    ),
    "no rank": (setting(r="many"), f"{CONFIG}: 'r' is 'many'; expected the rank of the adapters"),
    "no JSON": (file("adapter_config.json", "{"), f"{CONFIG}: "),
    "pickled weights": (
        pickled,
        "tuned/seed7: weights of the adapters are missing; expected adapter_model.safetensors, found adapter_model.bin",
    ),
    "a link out of the folder": (linked, f"{WEIGHTS}: a link that leaves the folder of the adapters"),
    "weights cut short": (cut, f"{WEIGHTS}: damaged or cut short"),
    "full weights with code": (
        remote_code,
        "tuned/seed7/config.json: 'auto_map' asks for code from the checkpoint, which is never run",
    ),
    "no base of the study": (
        setting(base_model_name_or_path="lab/other"),
        "tuned/seed7: its base 'lab/other' is not one base of the study (found: none); state family and step",
    ),
}


@pytest.mark.parametrize(("damage", "line"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_model_that_cannot_be_used_is_refused(place: Path, damage: Callable[[Path], None], line: str) -> None:
    block = {**BLOCK, "family": "mine", "step": 100} if "found: none" not in line else BLOCK
    damage(place)
    with pytest.raises(StudyError) as caught:
        config_checks.read(study(block))
    (found,) = str(caught.value).splitlines()
    assert found.startswith(line)


BAD_BLOCKS: dict[str, tuple[dict[str, Any], str]] = {
    "neither folder nor repository": (
        {"train": "x"},
        "config.yaml: adopted/lora: found neither; expected path, repo or table",
    ),
    "both": (
        {"path": "tuned", "repo": "a/b"},
        "config.yaml: adopted/lora: found repo and path; expected path, repo or table",
    ),
    "no such folder": (
        {"path": "no"},
        "config.yaml: adopted/lora/path: no is not a folder; expected sub-folders step{step}",
    ),
    "nothing matches": ({"path": "tuned"}, "config.yaml: adopted/lora: no model in tuned is one of these"),
    "no task": (
        {"path": "tuned", "pattern": "seed{seed}"},
        "tuned/seed7: train is not stated; expected it in the pattern",
    ),
    "another name": (
        {"path": "tuned", "pattern": "seed{number}", "train": "x"},
        "config.yaml: adopted/lora/pattern: 'number' is not known; allowed: family, step, train, format, seed",
    ),
    "a seed of words": (
        {"path": "tuned", "pattern": "s{seed}", "train": "x"},
        "tuned/seed7: seed is 'eed7', expected a whole number",
    ),
    "a task of no name": (
        {"table": "bad.csv", "path": "tuned"},
        "bad.csv, row 1: train is 'No task', expected the name of a task, or the word unknown",
    ),
    "another step than that of its adapters": (
        {**BLOCK, "step": 200, "family": "mine"},
        f"{CONFIG}: was tuned from '/home/user/step100', which is step 100 of mine, not step 200 of mine",
    ),
    "a step that is no base": (
        {**BLOCK, "step": 300, "family": "mine"},
        "tuned/seed7: step 300 is not a base of 'mine'; allowed: 100, 200; to leave models out, set `steps`",
    ),
    "no such family": (
        {**BLOCK, "family": "other", "step": 100},
        "tuned/seed7: family 'other' is not known; allowed: mine",
    ),
    "a path out of the folder": (
        {**BLOCK, "pattern": "../{seed}"},
        "config.yaml: adopted/lora/pattern: '../{seed}' is not",
    ),
    "a table elsewhere": (
        {"table": "../t.csv", "train": "x"},
        "config.yaml: adopted/lora/table: '../t.csv' points outside",
    ),
    "a table that leads out": (
        {"table": "out.csv", "train": "x"},
        "out.csv, row 1: folder '../x' points outside the folder",
    ),
    "a column of another name": (
        {"table": "odd.csv", "train": "x"},
        "odd.csv: column 'model' is not known; allowed: family",
    ),
    "a row of nothing": ({"table": "no.csv", "train": "x"}, "no.csv, row 1: expected either a folder or a repo"),
}
TABLES = {
    "bad.csv": "folder,train\nseed7,No task\n",
    "out.csv": "folder\n../x\n",
    "odd.csv": "model\nx\n",
    "no.csv": "seed\n1\n",
}


@pytest.mark.parametrize(("block", "line"), BAD_BLOCKS.values(), ids=BAD_BLOCKS)
def test_a_block_that_does_not_fit_is_refused(place: Path, block: dict[str, Any], line: str) -> None:
    for name, text in TABLES.items():
        (place / name).write_text(text)
    with pytest.raises(StudyError) as caught:
        config_checks.read(study(block))
    (found,) = str(caught.value).splitlines()
    assert found.startswith(line)


def test_one_model_twice_and_a_recipe_of_the_same_name_are_refused(place: Path) -> None:
    (place / "tuned/seed07").mkdir()
    shutil.copytree(place / "tuned/seed7", place / "tuned/seed07", dirs_exist_ok=True)
    recipe = {"lora": {"learning_rate": 1.0e-3}}
    with pytest.raises(StudyError) as caught:
        config_checks.read(study(recipes=recipe))
    assert str(caught.value).splitlines() == [
        "config.yaml: adopted/lora: the study has a recipe of that name; choose another name",
        "tuned/seed7: is the same model as tuned/seed07; give them other seeds or another name",
    ]


HUB: dict[str, Any] = {
    "olmo": {"source": "hub", "repo": "lab/olmo", "pattern": "step{step}", "steps": [10, "main"], "main_step": 20},
    "apart": {
        "source": "hub",
        "repos": [{"step": 5, "repo": "lab/five"}, {"step": 6, "repo": "lab/six", "revision": "v2"}],
    },
}


@pytest.mark.parametrize(
    ("name", "revision", "expected"),
    [
        ("lab/olmo", "step10-tokens4B", [("olmo", 10)]),
        ("lab/olmo", None, [("olmo", 20)]),
        ("lab/olmo", "step11", []),
        ("lab/five", "main", [("apart", 5)]),
        ("lab/six", "v2", [("apart", 6)]),
        ("lab/none", None, []),
    ],
)
def test_a_base_on_the_hub_is_named_by_repository_and_revision(
    name: str, revision: str | None, expected: list[tuple[str, int]]
) -> None:
    assert tuned_elsewhere.named_bases({"base_model_name_or_path": name, "revision": revision}, HUB) == expected


@pytest.mark.parametrize(
    ("name", "revision", "line"),
    [
        ("lab/olmo", None, "was tuned from 'lab/olmo', which is step 20 of olmo, not step 10 of olmo"),
        ("lab/olmo", "step11", "was tuned from revision 'step11' of lab/olmo, which is not step 10 of olmo"),
        ("lab/none", None, "was tuned from 'lab/none', but olmo is lab/olmo"),
    ],
)
def test_adapters_of_another_base_on_the_hub_are_refused(name: str, revision: str | None, line: str) -> None:
    settings = {"base_model_name_or_path": name, "revision": revision}
    with pytest.raises(StudyError) as caught:
        tuned_elsewhere.check_base("here", settings, ("olmo", 10), HUB)
    assert str(caught.value) == f"here: {line}"
    tuned_elsewhere.check_base("here", {**settings, "base_model_name_or_path": "/scratch/olmo"}, ("olmo", 10), HUB)


def test_full_weights_of_another_size_are_refused(place: Path) -> None:
    path = place / "steps/step200/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 9}))
    base: Base = {
        "family": "mine", "step": 200, "source": "folder", "repo": None, "revision": None, "path": "steps/step200", "files": {},
    }  # fmt: skip
    with pytest.raises(
        StudyError, match="'num_hidden_layers' is 2, that of its base 9; expected a model that was tuned from"
    ):
        tuned_elsewhere.take(place / "steps/step100", base, place / "out", {})
    assert not (place / "out").exists()
