"""A study of the hub: prefetched with a network, run in a namespace that has none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import hub_client
import pyarrow.parquet as pq
import pytest
import running
import torch
from hub_server import HubServer
from models.test_checkpoints import save_checkpoint
from peft import LoraConfig, get_peft_model

from workflow.storage import tables

pytestmark = pytest.mark.faults

STUDY = {
    "families": {
        "olmo": {"source": "hub", "repo": "lab/olmo", "steps": [1, "main"], "main_step": 9},
        "apart": {"source": "hub", "repos": [{"step": 5, "repo": "lab/apart"}]},
    },
    "recipes": {"full": {"examples": 4, "epochs": 1, "max_tokens": 64, "learning_rate": 1.0e-3}},
    "models": [{"train": ["paws"], "recipes": ["full"], "families": ["olmo"], "steps": [9]}],
    "suites": {"plain": {"tests": ["paws", "gpt3_nli"], "limit": 4}},
    "statistics": {"resamples": 100},
}
WITHOUT = ["unshare", "--net"]
HAS_NAMESPACES = (
    not subprocess.run([*WITHOUT, "true"], capture_output=True).returncode if shutil.which("unshare") else False
)


def serve(root: Path) -> None:
    """A hub's folders: a family of two revisions, one of a repository for its step, rows as Parquet and as JSON lines."""
    for place, folder in enumerate(("lab/olmo/step1-tokens4B", "lab/olmo/main", "lab/apart/main")):
        save_checkpoint(root / folder, seed=place)
    types = dict.fromkeys(("sentence1", "sentence2"), datasets.Value("string"))
    features = datasets.Features(
        {**types, "id": datasets.Value("int32"), "label": datasets.ClassLabel(names=["0", "1"])}
    )
    for split in ("train", "test"):
        rows = [
            {"id": row, "sentence1": "a bird can fly", "sentence2": "a fish can swim", "label": row % 2}
            for row in range(9)
        ]
        path = root / "datasets/google-research-datasets/paws/main/labeled_final" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(datasets.Dataset.from_list(rows, features=features).data.table, path)
    card = "".join(f"  - {{split: {split}, path: labeled_final/{split}-*}}\n" for split in ("train", "test"))
    card = f"---\nconfigs:\n- config_name: labeled_final\n  data_files:\n{card}---\n"
    (root / "datasets/google-research-datasets/paws/main/README.md").write_text(card)
    nli = root / "datasets/pietrolesci/gpt3_nli/main"
    nli.mkdir(parents=True)
    lines = [{"text_a": "a bird can fly", "text_b": "a fish can swim", "label": row % 3} for row in range(9)]
    (nli / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


class Login:
    """A place with a study of the hub, and the settings of the machine that it is on."""

    def __init__(self, place: Path, home: Path) -> None:
        self.place, self.home = place, home

    def run(self, url: str, *arguments: str, inside: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run the study, as it is or inside a namespace."""
        environment = hub_client.environment(self.home, url)
        environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        command = [*inside, *running.command(self.place, *arguments)]
        return subprocess.run(command, cwd=self.place, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def prefetched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Login, HubServer]]:
    """A study after `snakemake prefetch`, and the hub, which is gone by now."""
    folder = tmp_path_factory.mktemp("network")
    serve(folder / "hub")
    (folder / "home").mkdir()
    login = Login(running.lay_out(folder / "place", STUDY), folder / "home")
    with HubServer(folder / "hub") as hub:
        ended = login.run(hub.url, "prefetch")
        assert ended.returncode == 0, ended.stderr
    yield login, hub


def test_the_manifest_names_every_repository_s_commit_and_files(prefetched: tuple[Login, HubServer]) -> None:
    login, hub = prefetched
    manifest = json.loads((login.place / "study/resources/prefetched.json").read_text())
    found = {(entry["kind"], entry["repo"], entry["revision"]): entry["commit"] for entry in manifest}
    paws, nli = "google-research-datasets/paws", "pietrolesci/gpt3_nli"
    assert found == {
        ("model", "lab/olmo", "step1-tokens4B"): hub.commit("lab/olmo", "step1-tokens4B"),
        ("model", "lab/olmo", "main"): hub.commit("lab/olmo", "main"),
        ("model", "lab/apart", "main"): hub.commit("lab/apart", "main"),
        ("dataset", paws, "main"): hub.commit(f"datasets/{paws}", "main"),
        ("dataset", nli, "main"): hub.commit(f"datasets/{nli}", "main"),
    }
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(manifest[0]["files"])
    log = (login.place / "study/logs/prefetch.log").read_text()
    assert log.index(" to download for 5 checkpoints and datasets; ") < log.index("model lab/")


@pytest.mark.skipif(
    not HAS_NAMESPACES, reason="a process without a network needs the right to make a network namespace"
)
def test_all_jobs_run_without_a_network(prefetched: tuple[Login, HubServer]) -> None:
    login, hub = prefetched
    seen = len(hub.requests)
    links = subprocess.run([*WITHOUT, "cat", "/proc/net/route"], capture_output=True, text=True).stdout
    assert len(links.splitlines()) <= 1, "a namespace without any route"
    ended = login.run(hub.url, inside=tuple(WITHOUT))
    assert ended.returncode == 0, ended.stderr
    assert len(hub.requests) == seen
    results = login.place / "study/results"
    scores = tables.read(results / "scores.parquet")
    # 3 untouched bases and a tuned model on two tests.
    assert len(scores.groupby(["family", "step", "train", "test"])) == 8
    assert scores["value"].notna().all()
    for name, repo in (("paws", "google-research-datasets/paws"), ("gpt3_nli", "pietrolesci/gpt3_nli")):
        facts = tables.recorded(login.place / f"study/resources/tasks/{name}.parquet")
        assert (facts["source"], facts["revision"]) == (f"hub {repo}", hub.commit(f"datasets/{repo}", "main"))


@pytest.mark.skipif(
    not HAS_NAMESPACES, reason="a process without a network needs the right to make a network namespace"
)
def test_what_was_not_prefetched_is_one_line_without_a_network(prefetched: tuple[Login, HubServer]) -> None:
    login, hub = prefetched
    study = running.configured(login.place)
    study["families"]["olmo"]["steps"] = [1, 3, "main"]
    running.configure(login.place, study)
    pin = "resources/pins/bases/family=olmo/step=3.json"
    ended = login.run(hub.url, pin, inside=tuple(WITHOUT))
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("pin_base family")]
    assert line.startswith("pin_base family=olmo step=3: family olmo, step 3: lab/olmo: cannot be read from 127.0.0.1")
    assert not (login.place / "study" / pin).exists()


def test_equal_weights_are_told_before_any_download(tmp_path: Path) -> None:
    """All steps of a repository are looked up by the dry run; once the commits are known, so are steps with equal weights."""
    for place, revision in enumerate(("stage1-step1", "stage1-step3", "stage2-step1")):
        save_checkpoint(tmp_path / "hub/lab/olmo" / revision, seed=place)
    shutil.copytree(tmp_path / "hub/lab/olmo/stage1-step1", tmp_path / "hub/lab/olmo/stage1-step2")
    family = {"source": "hub", "repo": "lab/olmo", "pattern": "stage{stage}-step{step}", "steps": "all"}
    study = {"families": {"olmo": family}, "suites": {"plain": {"tests": ["mini_facts"]}}}
    (tmp_path / "home").mkdir()
    login = Login(running.lay_out(tmp_path / "place", study), tmp_path / "home")
    warning = "Warning: steps 1, 2 of olmo-stage1 have the same weights: model.safetensors."
    with HubServer(tmp_path / "hub") as hub:
        first = login.run(hub.url, "-n")
        assert first.returncode == 0 and "Study: 2 families, 4 bases, 1 test" in first.stderr, first.stderr
        assert "Warning" not in first.stderr
        pinned = login.run(hub.url, "prefetch", "--until", "pin_base")
        assert pinned.returncode == 0 and not [path for path in hub.sent if "/resolve/" in path], pinned.stderr
        assert warning in login.run(hub.url, "-n").stderr.splitlines()
        fetched = login.run(hub.url, "prefetch")
        assert fetched.returncode == 0 and warning in fetched.stderr.splitlines(), fetched.stderr


def test_models_tuned_elsewhere_come_from_the_hub(tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path / "hub/lab/olmo/main", seed=0)
    torch.manual_seed(1)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.peft_config["default"].base_model_name_or_path = "lab/olmo"
    adapted.save_pretrained(tmp_path / "hub/lab/tuned/seed4")
    study = {
        "families": {"apart": {"source": "hub", "repos": [{"step": 5, "repo": "lab/olmo"}]}},
        "adopted": {
            "lora": {"repo": "lab/tuned", "pattern": "seed{seed}", "family": "apart", "step": 5, "train": "unknown"}
        },
        "suites": {"plain": {"tests": ["mini_facts"], "limit": 2}},
    }
    (tmp_path / "home").mkdir()
    login = Login(running.lay_out(tmp_path / "place", study), tmp_path / "home")
    made = "resources/models/family=apart/step=5/train=unknown/format=default/recipe=lora/seed=4"
    with HubServer(tmp_path / "hub") as hub:
        ended = login.run(hub.url, "prefetch", made)
        assert ended.returncode == 0, ended.stderr
        commit = hub.commit("lab/tuned", "seed4")
    manifest = json.loads((login.place / "study/resources/prefetched.json").read_text())
    assert {entry["repo"]: sorted(entry["files"]) for entry in manifest if entry["repo"] == "lab/tuned"} == {
        "lab/tuned": ["adapter_config.json", "adapter_model.safetensors"]
    }
    lineage = json.loads((login.place / "study" / made / "lineage.json").read_text())
    assert lineage["adopted"] == {"repo": "lab/tuned", "revision": commit} and lineage["seed"] == "4"
