"""Benchmarks run in small on a CPU, so that they cannot rot; runs that are cut short go on; the table says what it should."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from running import ROOT

from benchmarks.gpu import parts, running, table, wheels
from benchmarks.gpu.running import Part
from benchmarks.gpu.subjects import Setting

sys.path.insert(0, str(ROOT / "benchmarks"))
SMALL = Setting("cpu")
MEASURED = [part for part in parts.PARTS if part.module]


# The GPU's, in small


@pytest.mark.faults
@pytest.mark.parametrize("part", MEASURED, ids=lambda part: part.name)
def test_every_cell_measures_something(part: Part) -> None:
    torch.set_num_threads(1)
    for name, run in parts.cells(part).items():
        values = run(SMALL)
        numbers = [own for own in values.values() if isinstance(own, int | float)]
        assert numbers and all(math.isfinite(own) and own >= 0 for own in numbers), (name, values)
        speeds = {key: own for key, own in values.items() if key.endswith("/s")}
        assert all(speeds.values()), (name, values)


@pytest.mark.slow
def test_exactness_is_that_of_rounding() -> None:
    cells = parts.cells(next(part for part in parts.PARTS if part.name == "exactness"))
    assert cells["log-probabilities fp32"](SMALL)["largest difference to the loop"] < 1e-4
    greedy = cells["greedy fp32"](SMALL)
    assert greedy["same texts"] == greedy["texts"]
    assert cells["losses fp32"](SMALL)["largest difference"] < 1e-4


# Runs


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Parts of which each takes a moment, and what was asked of each; how a cell ends is set by its name."""
    asked: list[tuple[str, tuple[str, ...]]] = []

    def ended(part, cells, results, here, seconds, environment):
        asked.append((part.name, tuple(cells)))
        for cell in cells:
            if cell == "hangs":
                return None
            if cell == "crashes":
                return -11
            state = "failed" if cell == "fails" else "ok"
            row = {"part": part.name, "cell": cell, "state": state, "values": {"speed": 1}, "seconds": 0.1}
            running.add(results, here | row | {"date": running.today()})
        return 0

    monkeypatch.setattr(running, "run_part", ended)
    return tmp_path / "results.jsonl", asked


def test_a_run_goes_on_where_it_stopped(places: Any) -> None:
    results, asked = places
    part = Part("a", "x", ("one", "two", "three"), 100)
    running.add(results, running.facts("cpu") | {"part": "a", "cell": "two", "state": "ok", "values": {}, "seconds": 1})
    with results.open("a") as file:
        file.write('{"part": "a", "cell": "thr')  # a kill in the middle of a line
    assert running.run([part], results, "cpu")
    assert asked == [("a", ("one", "three"))]
    assert running.run([part], results, "cpu") and len(asked) == 1
    assert [row["cell"] for row in running.read(results)] == ["two", "one", "three"]


def test_what_hangs_or_crashes_is_a_result_and_the_rest_goes_on(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    results, asked = places
    whole = [
        Part("a", "x", ("one", "hangs", "behind"), 100),
        Part("b", "x", ("crashes", "too"), 100),
        Part("c", "x", ("fails",), 9),
    ]
    assert not running.run(whole, results, "cpu")
    states = {(row["part"], row["cell"]): row["state"] for row in running.read(results)}
    assert states == {("a", "one"): "ok", ("a", "hangs"): "out of time", ("b", "crashes"): "failed",
                      ("b", "too"): "failed", ("c", "fails"): "failed"}  # fmt: skip
    asked.clear()
    running.run(whole, results, "cpu")
    assert asked == [("a", ("behind",))], "what failed is not tried again by the same code"
    monkeypatch.setattr(running, "code", lambda: "other")
    asked.clear()
    running.run(whole, results, "cpu")
    assert asked == [("a", ("hangs",)), ("b", ("crashes", "too")), ("c", ("fails",))]


def test_a_deadline_ends_a_run_without_a_failure(places: Any) -> None:
    results, asked = places
    long = [Part("a", "x", ("one",), 100), Part("b", "x", ("hangs",), 10_000)]
    assert not running.run(long, results, "cpu", deadline=time.monotonic() + 200)
    assert asked == [("a", ("one",)), ("b", ("hangs",))]
    assert [row["cell"] for row in running.read(results)] == ["one"]
    assert not running.run(long, results, "cpu", deadline=time.monotonic() + 30) and len(asked) == 2


def test_results_of_other_versions_and_devices_are_not_taken_for_these(places: Any) -> None:
    results, asked = places
    here = running.facts("cpu")
    for other in ({"device": "NVIDIA H200"}, {"versions": here["versions"] | {"torch": "0.0"}}):
        running.add(results, here | other | {"part": "a", "cell": "one", "state": "ok", "values": {}, "seconds": 1})
    assert running.run([Part("a", "x", ("one",), 100)], results, "cpu") and asked == [("a", ("one",))]


def test_a_part_that_outlives_its_limit_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process that would sleep on, and one that it has started."""
    monkeypatch.setattr(running, "GRACE", 1)
    sleeper = "import subprocess, time; subprocess.Popen(['sleep', '987']); time.sleep(987)"
    monkeypatch.setattr(sys, "executable", sys.executable)
    monkeypatch.setattr(
        running.subprocess, "Popen", _started_as(running.subprocess.Popen, [sys.executable, "-c", sleeper])
    )
    here = running.facts("cpu")
    assert running.run_part(Part("a", "x", ("one",), 1), ["one"], tmp_path / "r", here, 1.0, {}) is None
    time.sleep(0.2)
    left = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)]
    assert not any(line.startswith(b"sleep\x00987") for line in left)


def _readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def _started_as(plain: Any, command: list[str]) -> Any:
    return lambda _, **settings: plain(command, process_group=settings["process_group"])


@pytest.mark.faults
def test_one_command_measures_and_prints_a_table(tmp_path: Path) -> None:
    """The whole way through real processes, for two cells."""
    import subprocess

    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--device",
        "cpu",
        "--only",
        "pretraining",
        "--results",
        "r.jsonl",
    ]
    command[-1] = str(tmp_path / "deep" / "r.jsonl")
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "| pretraining | OLMo-1B step | tokens/s" in ended.stdout and "small models stand in" in ended.stdout.lower()
    again = subprocess.run([*command, "--table"], cwd=ROOT, capture_output=True, text=True)
    assert again.stdout.strip() in ended.stdout
    unknown = subprocess.run([*command[:5], "--only", "speed"], cwd=ROOT, capture_output=True, text=True)
    assert unknown.returncode == 1 and unknown.stderr.startswith("--only speed: no such part; allowed: tests, tuning")


# The table


def cell(part: str, name: str, **values: Any) -> dict[str, Any]:
    """A result of a GPU."""
    return {
        "device": "NVIDIA H200", "driver": "580.1", "versions": {"python": "3.12.3", "torch": "2.11.0"}, "code": "c",
        "part": part, "cell": name, "state": "ok", "values": values, "seconds": 2.0, "date": "2026-11-27",
    }  # fmt: skip


def test_goals_are_met_or_not_or_not_measured() -> None:
    found = [
        cell("tuning", "full, 2k tokens", **{"% of peak": 45.0, "GB": 90.0, "GB reckoned": 80.0}),
        cell("tuning", "full, MNLI rows", **{"% of peak": 24.9, "GB": 20.0, "GB reckoned": 80.0}),
        cell("scoring", "0-shot", **{"prompts/s": 500.0}),
        cell("scoring", "lm-eval 0-shot", **{"prompts/s": 50.0}),
        cell("generation", "0-shot, short", **{"tokens/s": 300}),
        cell("generation", "generate 0-shot, short", **{"tokens/s": 60}),
        cell("compiled", "compiled 0-shot, short", **{"tokens/s": 100}),
        cell("generation", "4-shot, short", **{"tokens/s": 400})
        | {"state": "failed", "error": "OutOfMemoryError: CUDA | out"},
    ]
    lines = table.report(parts.PARTS, found).splitlines()
    assert lines[0] == "**NVIDIA H200, driver 580.1; python 3.12.3, torch 2.11.0; 2026-11-27**"
    told = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in lines if line.count(" | ") == 3}
    assert told["tuning at 2k tokens, full, OLMo-1B: % of bf16 peak"] == ["≥ 45", "45.0", "met |"]
    assert told["tuning at MNLI rows, full, OLMo-1B: % of bf16 peak"] == ["≥ 25", "24.9", "**not met** |"]
    assert told["scoring, 0-shot: × lm-evaluation-harness at its best batch size"] == ["≥ 5", "10.0", "met |"]
    assert told["scoring, 4-shot: × lm-evaluation-harness at its best batch size"] == ["≥ 15", "–", "not measured |"]
    assert told["generation, 0-shot, short: × the faster `generate` at batch 32"] == ["≥ 4", "3.0", "**not met** |"]
    assert "| generation | 4-shot, short | **failed**: OutOfMemoryError: CUDA / out | 2 |" in lines
    assert "| tests | marked gpu | not run |  |" in lines
    assert "| tuning, full, 2k tokens | 90.0 | 80.0 | 1.12 **too little** |" in lines
    assert "| tuning, full, MNLI rows | 20.0 | 80.0 | 0.25 |" in lines


def test_hours_of_the_published_study_follow_from_speeds() -> None:
    """Twice as fast in everything is half the hours, but for the starts; each start a second longer is its jobs' seconds."""
    slow = table.Speeds(tuning=1e14, reading=1e14, written=1000.0, start=0.0)
    fast = table.Speeds(tuning=2e14, reading=2e14, written=2000.0, start=0.0)
    later = slow._replace(start=3600.0)
    one, two, three = (table.estimates(speeds) for speeds in (slow, fast, later))
    assert {rule: own / 2 for rule, own in one.items()} == pytest.approx(two, rel=1e-6)
    jobs = table.estimate(1e14, 1000.0)["jobs"]
    assert {rule: three[rule] - own for rule, own in one.items()} == pytest.approx({rule: jobs[rule] for rule in one})


# Wheels


def test_wheels_are_those_of_the_locks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = wheels.wanted()
    assert len(found) > 20 and all(package.count("==") == 1 for package in found)
    monkeypatch.setattr(wheels, "LOCKS", ("requirements.lock",))
    with pytest.raises(SystemExit, match="lm_eval"):
        wheels.wanted()


def test_only_what_is_lacking_is_taken_from_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch-9.9-py3-none-any.whl", "no_such_package-1.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    asked = []
    monkeypatch.setattr(running.subprocess, "run", lambda command, **_: asked.append(command))
    with running.brought(tmp_path) as environment:
        assert str(ROOT) in environment["PYTHONPATH"]
    assert [Path(own).name for own in asked[0] if own.endswith(".whl")] == ["no_such_package-1.0-py3-none-any.whl"]
    with pytest.raises(SystemExit, match="expected one with wheels"), running.brought(tmp_path / "none"):
        pass
    monkeypatch.setattr(running, "NEEDED", ("torch", "no_such_package"))
    with running.brought(tmp_path):
        pass
    with pytest.raises(SystemExit, match=r"^no_such_package: not installed, nor in a folder"), running.brought(None):
        pass


# The CPU's, beside their peers


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of rows in the hub's schema, of random words."""
    import random

    from benchmarks.gpu import subjects

    place, generator, words = tmp_path_factory.mktemp("rows"), random.Random(0), subjects.lexicon()

    def text(length: int) -> str:
        return subjects.text(generator, words, length)

    made = {
        "mnli": lambda number: {"premise": text(9), "hypothesis": text(5), "label": number % 3, "idx": number},
        "social_iqa": lambda number: {
            "context": text(9), "question": text(5), "answerA": text(3), "answerB": text(3), "answerC": text(3), "label": "1",
        },
        "xsum": lambda number: {"document": text(20), "summary": text(6), "id": str(number)},
        "pretraining/web": lambda number: {"text": text(40)},
    }  # fmt: skip
    splits = {"mnli": ("train", "validation"), "social_iqa": ("train", "validation"), "xsum": ("train", "test")}
    for name, make in made.items():
        (place / name).mkdir(parents=True)
        for split in splits.get(name, ("train",)):
            lines = (json.dumps(make(number)) + "\n" for number in range(30))
            (place / name / f"{split}.jsonl").write_text("".join(lines))
    return place


@pytest.mark.faults
@pytest.mark.parametrize("name", ["scoring", "generation", "tuning"])
def test_a_benchmark_on_a_cpu_prints_its_tables(
    name: str, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib

    pairing = importlib.import_module("pairing")
    module = importlib.import_module(name)
    shape = {"vocabulary": 600, "hidden": 32, "layers": 2, "heads": 2, "intermediate": 64, "context": 2048, "seed": 0}
    monkeypatch.setattr(pairing, "SUBJECT", shape)
    monkeypatch.setattr(pairing, "STEPS", 2)
    monkeypatch.setattr(pairing, "SIZE", 64)
    monkeypatch.setattr(pairing, "ROWS", (8, 64))
    more = {
        "scoring": ["--tests", "mnli:0", "mnli:1"], "generation": ["--tests", "social_iqa:1"],
        "tuning": ["--task", "mnli", "--steps", "1", "--compared", "2", "--way", "Tunecast", "HF Trainer"],
    }[name]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [name, "--data", str(rows), "--subject", str(tmp_path / "subject"), "--rows", "4",
                                      "--pairs", "1", *more])  # fmt: skip
    module.main()
    told = capsys.readouterr().out
    assert "| way | seconds | ×" in told and "| Tunecast |" in told
    assert "oneDNN: " in told and "torch (MKL): " in told and "GFLOP/s in fp32 at 8 / 64 rows" in told
    if name == "generation":
        assert "NOT those of" not in told


def test_rows_without_text_and_a_model_of_another_architecture_will_do(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer from rows alone; a checkpoint of GPT-NeoX in place of the small model."""
    import argparse
    import importlib

    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    pairing = importlib.import_module("pairing")
    monkeypatch.setattr(pairing, "SUBJECT", pairing.SUBJECT | {"vocabulary": 400})
    data = tmp_path / "rows"
    data.mkdir()
    (data / "mnli").symlink_to(rows / "mnli")
    tokenizer = pairing.words(data, ["mnli"])
    shape = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    GPTNeoXForCausalLM(GPTNeoXConfig(**shape, intermediate_size=64)).save_pretrained(tmp_path / "neox")
    tokenizer.save_pretrained(tmp_path / "neox")
    model, read = pairing.prepared(argparse.Namespace(model=tmp_path / "neox", data=data, subject=None), ["mnli"])
    assert model.config.model_type == "gpt_neox" and not model.training and len(read) == len(tokenizer)


# The CPU tail


def test_scores_of_a_test_are_timed_by_kind_and_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    import large_tests

    large_tests.main(["--rows", "20", "--kinds", "label", "generate"])
    told = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(line[0].removeprefix("| "), line[1], line[2]) for line in told] == [
        (kind, protocol, "20") for kind in ("label", "generate") for protocol in ("sound", "published")
    ]


def test_the_steps_after_predictions_are_measured_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    import tail

    tail.main(["--checkpoints", "1", "--rows", "4"])  # with what each script reads of its rule
    told = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    names = [line[0].removeprefix("| ") for line in told]
    assert {"gather items", "analyse turning_point", "audit", "recommend", "find", "draw curves"} <= set(names)
    assert {line[1] for line in told} == {"630"} and len(set(names)) == len(names)


@pytest.mark.slow
def test_snakemake_s_own_time_is_measured_on_a_study_that_is_finished(capsys: pytest.CaptureFixture[str]) -> None:
    """A step has 533 jobs, and the rest of the study a few."""
    import grid

    grid.main(["--steps", "1"])
    told = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:6]]
    jobs = {line[0]: int(line[1]) for line in told}
    assert jobs["nothing to do"] == 0 and 533 < jobs["dry run"] < 600 and jobs["dry run of a step more"] > 533
