"""Models that were tuned elsewhere, through the real Snakefile: adapters by PEFT and by hand, and full weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import running
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from workflow.errors import StudyError
from workflow.models import loading
from workflow.settings import Base

STUDY = {
    "families": {"local": {"source": "folder", "path": "../steps", "pattern": "step={step}"}},
    "tasks": {
        "stars": {
            "method": "label",
            "path": "rows",
            "train": "train",
            "test": "test",
            "templates": {"default": "{said} It is"},
            "answer": "stars",
            "labels": {1: "bad", 5: "good"},
        }
    },
    "adopted": {
        "peft": {"path": "../tuned", "pattern": "peft-seed{seed}", "train": "stars"},
        "by-hand": {"path": "../tuned", "pattern": "hand-step{step}", "family": "local", "train": "unknown"},
        "trainer": {"table": "tuned.csv", "path": "../tuned", "train": "stars"},
    },
    "suites": {"plain": {"tests": ["stars"]}},
    "statistics": {"resamples": 100},
}
TABLE = "folder,family,step,seed\nfull,local,20,4\n"
WANTED = ("results/scores.parquet", "results/analysis.parquet")
TARGETS = ["q_proj", "v_proj", "up_proj"]
SAID = [
    {"said": f"The soup was {'dull' if n % 2 else 'fine'} on day {n}.", "stars": 1 if n % 2 else 5} for n in range(8)
]


def trained(model: Any, folder: Path, steps: int = 6) -> None:
    """Tune a model on a few texts with transformers' Trainer and save it there."""
    texts = [f"{row['said']} It is {'bad' if row['stars'] == 1 else 'good'}" for row in SAID]
    rows = [{"input_ids": ids, "labels": ids} for ids in (torch.randint(0, 60, (12,)).tolist() for _ in texts)]
    settings = TrainingArguments(
        str(folder / "runs"), max_steps=steps, per_device_train_batch_size=1, learning_rate=0.02, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    Trainer(model, settings, train_dataset=rows).train()
    shutil.rmtree(folder / "runs", ignore_errors=True)
    model.save_pretrained(folder)


def by_hand(base: Path, folder: Path) -> None:
    """Adapters that no library wrote: two small matrices for each layer, and the few settings that PEFT needs."""
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    weights = {name: tensor for name, tensor in load_file(base / "model.safetensors").items() if "q_proj" in name}
    small = {}
    for name, weight in weights.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        small[f"{module}.lora_A.weight"] = torch.randn(2, weight.shape[1]) * 0.3
        small[f"{module}.lora_B.weight"] = torch.randn(weight.shape[0], 2) * 0.3
    save_file(small, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def finished(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study after a run; not to be changed."""
    place = running.lay_out(tmp_path_factory.mktemp("adopted") / "place", STUDY)
    base = shutil.copytree(smoke / "study/resources/pretrained/family=tiny/step=20", place / "steps/step=20")
    for split, rows in (("train", SAID), ("test", SAID[:6])):
        path = place / f"study/rows/{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (place / "study/tuned.csv").write_text(TABLE)
    for seed in (0, 3):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base)
        trained(
            get_peft_model(model, LoraConfig(r=4, target_modules=TARGETS, task_type="CAUSAL_LM")),
            place / f"tuned/peft-seed{seed}",
        )
    by_hand(base, place / "tuned/hand-step20")
    trained(AutoModelForCausalLM.from_pretrained(base), place / "tuned/full", steps=2)
    AutoTokenizer.from_pretrained(base).save_pretrained(place / "tuned/full")
    ended = running.run(place, *WANTED)
    assert ended.returncode == 0, ended.stderr
    assert "4 models tuned elsewhere" in ended.stderr
    return place


@torch.no_grad()
def log_probability(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    """Sum over the answer's tokens, one row at a time, as transformers computes it."""
    start, ids = len(tokenizer(prompt)["input_ids"]), tokenizer(f"{prompt} {answer}")["input_ids"]
    logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    return sum(float(logits[place - 1, ids[place]]) for place in range(start, len(ids)))


MODELS = {
    "recipe=peft/seed=0": "peft-seed0",
    "recipe=peft/seed=3": "peft-seed3",
    "recipe=by-hand/seed=0": "hand-step20",
    "recipe=trainer/seed=4": "full",
}


@pytest.mark.parametrize("keys", MODELS)
def test_scored_as_transformers_and_peft_do(finished: Path, keys: str) -> None:
    folder, base = finished / "tuned" / MODELS[keys], finished / "steps/step=20"
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(folder if MODELS[keys] == "full" else base).eval()
    if MODELS[keys] != "full":
        model = PeftModel.from_pretrained(model, folder).eval()
    train = "unknown" if "hand" in keys else "stars"
    part = f"family=local/step=20/train={train}/format=default/{keys}/suite=plain/tests=all/part.parquet"
    rows = pd.read_parquet(finished / "study/results/predictions" / part)
    assert len(rows) == 6
    untouched = pd.read_parquet(next((finished / "study/results/predictions").glob("**/recipe=none/**/part.parquet")))
    for said, row, other in zip(SAID, rows.to_dict("records"), untouched.to_dict("records"), strict=False):
        found = [log_probability(model, tokenizer, f"{said['said']} It is", answer) for answer in row["choices"]]
        assert list(row["logprobs"]) == pytest.approx(found, abs=1e-4)
        assert abs(row["logprobs"][0] - other["logprobs"][0]) > 1e-3, "tuning has changed the model"


def test_they_are_analysed_like_models_tuned_here(finished: Path) -> None:
    scores = pd.read_parquet(finished / "study/results/scores.parquet")
    assert scores.groupby(["recipe", "train"])["seed"].unique().map(sorted).to_dict() == {
        ("none", "none"): [0], ("peft", "stars"): [0, 3], ("by-hand", "unknown"): [0], ("trainer", "stars"): [4],
    }  # fmt: skip
    analysis = pd.read_parquet(finished / "study/results/analysis.parquet")
    changes = analysis[analysis["analysis"] == "tuning_difference"]
    assert {"peft", "by-hand", "trainer"} <= set(changes["recipe"])


def other_adapters(place: Path) -> None:
    """One adapter is tuned further."""
    path = place / "tuned/peft-seed3/adapter_model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(path).items()}, path)


def another_seed(place: Path) -> None:
    """One adapter more lies in the folder."""
    shutil.copytree(place / "tuned/peft-seed3", place / "tuned/peft-seed5")


def moved(place: Path) -> None:
    """The folder of the models lies elsewhere."""
    (place / "tuned").rename(place / "others")
    config = running.configured(place)
    for block in config["adopted"].values():
        block["path"] = "../others"
    running.configure(place, config)


def without_one(place: Path) -> None:
    """The study no longer has one of the blocks."""
    config = running.configured(place)
    del config["adopted"]["by-hand"]
    running.configure(place, config)


def other_rows(place: Path) -> None:
    """A test row says something else."""
    path = place / "study/rows/test.jsonl"
    path.write_text(path.read_text().replace("day 2", "day two"))


ANALYSES = len(list((running.ROOT / "workflow/analysis/analyses").glob("[a-z]*.py")))
TAIL = {"gather": 3, "analyse": ANALYSES}
COSTS: dict[str, tuple[Callable[[Path], None], dict[str, int]]] = {
    "nothing": (lambda place: None, {}),
    "a moved folder": (moved, {}),
    "another version of adapters": (other_adapters, {"take": 1, "predict": 1, "score": 1, **TAIL}),
    "adapters more": (another_seed, {"take": 1, "predict": 1, "score": 1, **TAIL}),
    "a block less": (without_one, TAIL),
    "rows of a test": (other_rows, {"prepare": 1, "predict": 5, "score": 5, **TAIL}),
}


@pytest.mark.parametrize("case", COSTS)
def test_a_change_runs_its_own_jobs_alone(finished: Path, tmp_path: Path, case: str) -> None:
    place = shutil.copytree(finished, tmp_path / "place")
    change, cost = COSTS[case]
    change(place)
    assert running.planned(place, *WANTED) == cost


@pytest.mark.parametrize("kind", ["missing", "unexpected"])
def test_adapters_whose_weights_do_not_fit_are_refused(finished: Path, tmp_path: Path, kind: str) -> None:
    """PEFT would compute the base, without a word."""
    folder = shutil.copytree(finished / "tuned/hand-step20", tmp_path / "adapters")
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    name = min(weights)
    moved = {} if kind == "missing" else {name.replace("layers.0", "layers.90"): weights[name].clone()}
    save_file({key: tensor for key, tensor in weights.items() if kind == "unexpected" or key != name} | moved, path)
    base: Base = {
        "family": "local", "step": 20, "source": "folder", "repo": None, "revision": None,
        "path": str(finished / "steps/step=20"), "files": {},
    }  # fmt: skip
    with pytest.raises(
        StudyError, match=f"adapter_model.safetensors: does not fit its base: 1 {kind}, such as base_model"
    ):
        loading.evaluated(base, folder, "fp32")


def test_results_and_merged_models_go_out(finished: Path, tmp_path: Path) -> None:
    place = shutil.copytree(finished, tmp_path / "place")
    merged = "resources/merged/family=local/step=20/train=stars/format=default/recipe=peft/seed=3"
    ended = running.run(place, "export", merged)
    assert ended.returncode == 0, ended.stderr
    files = {path.parent.parent.name for path in (place / "study/results/export/lm_eval").rglob("results_*.json")}
    tuned = {"local+stars+default+peft+seed0", "local+stars+default+peft+seed3", "local+stars+default+trainer+seed4"}
    assert files == {"local", "local+unknown+default+by-hand+seed0", *tuned}
    base = AutoModelForCausalLM.from_pretrained(place / "steps/step=20")
    expected = PeftModel.from_pretrained(base, place / "tuned/peft-seed3").merge_and_unload().state_dict()
    found = AutoModelForCausalLM.from_pretrained(place / "study" / merged).state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert AutoTokenizer.from_pretrained(place / "study" / merged)("good")["input_ids"]
