"""The real Snakefile: what is still valid is not made again, whatever its date and wherever it lies; what is damaged is told."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import running
import yaml

from workflow.storage import checksums

Change = Callable[[Path], Path]


def redate(*folders: Path) -> None:
    """Give all files new dates in a random order, as a copy or a restored backup has them: no two the same."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    for age, path in enumerate(random.Random(0).sample(files, len(files))):
        date = time.time_ns() - age * 10_000_000
        os.utime(path, ns=(date, date))


def newer_code(place: Path) -> Path:
    """Every script, module and rules file is touched."""
    redate(place / "workflow", place / "rules", place / "envs")
    return place


def another_clone(place: Path) -> Path:
    """The code is replaced by another copy."""
    for name in running.CODE:
        path = place / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if (running.ROOT / name).is_dir():
            shutil.copytree(running.ROOT / name, path, copy_function=shutil.copy)
        else:
            shutil.copy(running.ROOT / name, path)
    return place


def code_elsewhere(place: Path) -> Path:
    """The study lies in another folder than the code, and deeper."""
    moved = place.parent / "other" / "place"
    moved.mkdir(parents=True)
    for name in running.CODE:
        (place / name).rename(moved / name)
    (place / "study").rename(moved / "study")
    return moved


def newer_results(place: Path) -> Path:
    """Everything that the study has made is touched."""
    redate(place / "study" / "resources", place / "study" / "results", place / "study" / "logs")
    return place


def older_and_back(place: Path) -> Path:
    """Another version of the code was there for a while, but nothing was run."""
    path = place / "workflow/data/prompts.py"
    text = path.read_text()
    path.write_text(text.replace("### Inference: ", "### Label: "))
    assert running.planned(place)
    path.write_text(text)
    return place


UNCHANGED: list[Change] = [newer_code, another_clone, code_elsewhere, newer_results, older_and_back]


@pytest.mark.parametrize("change", UNCHANGED, ids=lambda change: change.__name__)
def test_what_changes_no_content_runs_nothing(changed: Path, change: Change) -> None:
    assert running.planned(change(changed)) == {}


# --- rows and checkpoints of the user's ---------------------------------------------------------------------------------

ROWS = [{"sentence1": f"A man sleeps {n}.", "sentence2": "A man runs.", "label": n % 2, "idx": n} for n in range(12)]
OWN = {
    "families": {"local": {"source": "folder", "path": "../steps", "pattern": "step={step}"}},
    "data_root": "../rows",
    "suites": {"plain": {"tests": ["rte"], "limit": 4}},
    "statistics": {"resamples": 100},
}
WANTED = "results/scores.parquet"


@pytest.fixture(scope="module")
def own(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of a checkpoint and of rows that the user has, after a run; not to be changed."""
    place = running.lay_out(tmp_path_factory.mktemp("own") / "place", OWN)
    shutil.copytree(smoke / "study/resources/pretrained/family=tiny/step=20", place / "steps/step=20")
    for split in ("train", "validation"):
        path = place / f"rows/rte/{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    ended = running.run(place, WANTED)
    assert ended.returncode == 0, ended.stderr
    return place


def redated(place: Path, config: dict[str, Any]) -> None:
    """Rows and checkpoints have new dates."""
    redate(place / "rows", place / "steps")


def moved(place: Path, config: dict[str, Any]) -> None:
    """Rows and checkpoints lie elsewhere, with new dates, and the config says so."""
    (place / "elsewhere").mkdir()
    for name in ("rows", "steps"):
        (place / name).rename(place / "elsewhere" / name)
    redate(place / "elsewhere")
    (place / "elsewhere/steps/step=20").rename(place / "elsewhere/steps/ckpt-20")
    config["families"]["local"] |= {"path": "../elsewhere/steps", "pattern": "ckpt-{step}"}
    config["data_root"] = "../elsewhere/rows"


def another_row(place: Path, config: dict[str, Any]) -> None:
    """A row says something else, at the date of the old one."""
    path = place / "rows/rte/validation.jsonl"
    date = path.stat().st_mtime_ns
    path.write_text(path.read_text().replace("A man runs.", "A man rows."))
    os.utime(path, ns=(date - 10, date - 10))


def another_weight(place: Path, config: dict[str, Any]) -> None:
    """A bit of the weights is another, at a date before."""
    path = place / "steps/step=20/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    os.utime(path, (0, 0))


@pytest.mark.parametrize(
    ("change", "cost"),
    [
        (redated, {}),
        (moved, {}),
        (another_row, {"prepare": 1, "predict": 1, "score": 1, "gather": 1}),
        (another_weight, {"fetch": 1, "predict": 1, "score": 1, "gather": 1}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_rows_and_checkpoints_count_by_what_they_hold(
    own: Path, tmp_path: Path, change: Callable[[Path, dict[str, Any]], None], cost: dict[str, int]
) -> None:
    place = shutil.copytree(own, tmp_path / "place")
    config = running.configured(place)
    change(place, config)
    running.configure(place, config)
    assert running.planned(place, WANTED) == cost


def test_a_base_that_has_moved_is_loaded_from_where_it_is_now(own: Path, tmp_path: Path) -> None:
    place = shutil.copytree(own, tmp_path / "place")
    config = running.configured(place)
    moved(place, config)
    config["suites"]["more"] = {"tests": ["rte"], "limit": 3}
    running.configure(place, config)
    assert running.planned(place, WANTED) == {"predict": 1, "score": 1, "gather": 1}
    ended = running.run(place, WANTED)
    assert ended.returncode == 0, ended.stderr
    assert running.planned(place, WANTED) == {}


def test_weights_that_changed_behind_the_back_of_a_run_are_told(own: Path, tmp_path: Path) -> None:
    """Their date is the old one, so that no start notices; whoever loads them does."""
    place = shutil.copytree(own, tmp_path / "place")
    path = place / "steps/step=20/model.safetensors"
    date = path.stat().st_mtime_ns
    another_weight(place, {})
    os.utime(path, ns=(date, date))
    for name in ("predictions", "scores", "items"):
        shutil.rmtree(place / "study/results" / name)
    (place / "study" / WANTED).unlink()
    ended = running.run(place, WANTED)
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("predict family=")]
    assert "steps/step=20/model.safetensors: is not what `fetch` recorded" in line


# --- damage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "resources/tasks/mini_facts.parquet",
        "resources/bases/family=tiny/step=20/base.json",
        "results/scores.parquet",
        "results/tables/performance_difference.csv",
        "results/figures/curves.png",
        "results/captions.rst",
    ],
)
def test_a_flipped_byte_stops_the_study_with_a_line(changed: Path, name: str) -> None:
    path = changed / "study" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    ended = running.run(changed)
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith(name)]
    assert line.startswith(f"{name}: does not match its checksum")
    path.unlink()
    checksums.place(path).unlink()


def test_a_part_of_another_cell_stops_the_study_with_a_line(changed: Path) -> None:
    first, second = sorted((changed / "study/results/predictions").rglob("part.parquet"))[:2]
    shutil.copy(first, second)
    shutil.copy(checksums.place(first), checksums.place(second))
    ended = running.run(changed)
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("score family=")]
    assert f"{second.relative_to(changed / 'study')}: was made for " in line
    assert line.endswith("so it belongs to another cell; delete it and run again")


# --- studies of an earlier version ---------------------------------------------------------------------------------------


def of_an_earlier_version(place: Path) -> Path:
    """The study as if a version had made it that knew no checksums and noted settings alone."""
    study = place / "study"
    for path in [*study.rglob(".*.sha256")]:
        path.unlink()
    for path in (study / ".snakemake/metadata").rglob("*"):
        if path.is_file():
            if base64.urlsafe_b64decode(path.name.removeprefix("@")).endswith(b".sha256"):
                path.unlink()
                continue
            record = json.loads(path.read_text())
            record["params"] = [told for told in record["params"] or [] if told.startswith(("{", "[")) and told != "{}"]
            path.write_text(json.dumps(record))
    return place


def test_a_study_of_an_earlier_version_is_upgraded_by_one_command(changed: Path) -> None:
    of_an_earlier_version(changed)
    refused = running.run(changed)
    assert refused.returncode == 1
    assert "an earlier version of Tunecast made this study; run `python -m workflow.upgrading" in refused.stderr
    study = running.configured(changed)
    study["recipes"]["lora"]["learning_rate"] = 2.0e-3  # what was made by other settings is not taken over
    running.configure(changed, study)
    upgrade = [sys.executable, "-m", "workflow.upgrading", "--directory", "study"]
    ended = subprocess.run(upgrade, cwd=changed, env=running.ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    plan = running.planned(changed)
    assert {rule: plan.get(rule, 0) for rule in ("prepare", "pretrain", "fetch", "measure", "tune", "predict")} == {
        "prepare": 0, "pretrain": 0, "fetch": 0, "measure": 0, "tune": 1, "predict": 2
    }  # fmt: skip


def with_a_family_of_one_job(place: Path) -> Path:
    """The study as if a version had made it that trained a family in one job; returns the family's folder."""
    study, family = place / "study", place / "study/resources/pretrained/family=tiny"
    records = study / ".snakemake/metadata"
    paths = {
        file: base64.urlsafe_b64decode(file.name.removeprefix("@")).decode()
        for file in records.rglob("*")
        if file.is_file()
    }
    shutil.copy2(family / "step=0/.snakemake_timestamp", family)  # before all that was made from it
    for file, path in paths.items():
        record = json.loads(file.read_text())
        if path == "resources/pretrained/family=tiny/step=20":
            (settings,) = [told for told in record["params"] if "'vocabulary'" in told]
            told = settings[:-1] + ", 'save': [0, 10, 20]}"
            record["params"] = sorted(told if other == settings else other for other in record["params"])
            key = base64.urlsafe_b64encode(b"resources/pretrained/family=tiny").decode()
            (records / key).write_text(json.dumps(record))
        elif path.startswith("resources/bases/"):
            names = ["resources/pretrained/family=tiny", "resources/pretrained/.family=tiny.sha256"]
            file.write_text(json.dumps(record | {"input": names, "input_checksums": {}}))
        if "/pretrained/" in path:
            file.unlink()
    for step in family.glob("step=*"):
        (step / ".snakemake_timestamp").unlink()
        checksums.forget(step)
    checksums.write(family)
    measured = study / "results/benchmarks/pretrain"
    (measured / "family=tiny/step=20.tsv").rename(measured / "family=tiny.tsv")
    shutil.rmtree(measured / "family=tiny")
    return family


def upgraded(place: Path) -> subprocess.CompletedProcess[str]:
    upgrade = [sys.executable, "-m", "workflow.upgrading", "--directory", "study"]
    return subprocess.run(upgrade, cwd=place, env=running.ENVIRONMENT, capture_output=True, text=True)


def test_a_family_that_was_trained_in_one_job_is_not_trained_again(changed: Path) -> None:
    with_a_family_of_one_job(changed)
    assert "an earlier version of Tunecast made this study" in running.run(changed).stderr
    ended = upgraded(changed)
    assert ended.returncode == 0, ended.stderr
    plan = running.planned(changed)
    assert not set(plan) & {"pretrain", "fetch", "measure", "tune", "predict", "score"}, plan
    assert (changed / "study/results/benchmarks/pretrain/family=tiny/step=20.tsv").is_file()


def test_damaged_weights_are_not_upgraded(changed: Path) -> None:
    family = with_a_family_of_one_job(changed)
    (family / "step=10/model.safetensors").write_bytes(b"other")
    ended = upgraded(changed)
    assert ended.returncode == 1
    assert "step=10/model.safetensors: does not match its checksum" in ended.stderr


def test_the_profile_leaves_dates_and_code_to_content() -> None:
    profile = yaml.safe_load((running.ROOT / "profiles/default/config.yaml").read_text())
    assert "code" not in profile["rerun-triggers"]
