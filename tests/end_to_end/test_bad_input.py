"""Bad input, systematically: each is one line that says where and what is allowed, leaves nothing, and can be mended."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import running
import torch
import transformers
from safetensors.torch import load_file, save_file
from scripts import Job

from workflow.models import checkpoints
from workflow.storage import checksums
from workflow.storage.content_hashes import Places
from workflow.study import config as configs
from workflow.study import grid

BASE = {"family": "mine", "step": "10"}
MODEL = {**BASE, "train": "rte", "format": "default", "recipe": "full", "seed": "0"}
PART = {**MODEL, "suite": "plain", "tests": "all"}
STEP, ROWS = Path("../steps/step10"), Path("../data/rte/train.jsonl")
MANIFEST = f"resources/bases/{grid.path(BASE, grid.BASE_KEYS)}/base.json"
PREPARED = "resources/tasks/rte.parquet"
WEIGHTS = f"resources/models/{grid.path(MODEL, grid.MODEL_KEYS)}"
PREDICTED, SCORED, ITEMS = (
    f"results/{kind}/{grid.path(PART, grid.PART_KEYS)}/part.parquet" for kind in ("predictions", "scores", "items")
)
GATHERED = "results/items.parquet"
STUDY = {
    "families": {"mine": {"source": "folder", "path": "../steps"}},
    "data_root": "../data",
    "recipes": {"full": {"examples": 4, "epochs": 1, "batch": 2, "max_tokens": 64, "learning_rate": 1.0e-3}},
    "models": [{"train": ["rte"], "recipes": ["full"]}],
    "suites": {"plain": {"tests": ["rte"], "limit": 4}},
    "statistics": {"resamples": 100},
}
WHOLE = configs.validated(STUDY)
FOLDER = Path("../steps/step10")
GOOD = [
    {"sentence1": "A cat sleeps.", "sentence2": f"Cat {row} sleeps.", "label": row % 2, "idx": row} for row in range(8)
]


def tune(**changes: Any) -> Job:
    """The job that tunes by the study's recipe with some changes."""
    return Job(
        "tune",
        {"model": WEIGHTS, "history": f"results/histories/{grid.path(MODEL, grid.MODEL_KEYS)}/part.parquet"},
        {"base": MANIFEST, "task": PREPARED, "choice": []},
        {"recipe": WHOLE["recipes"]["full"] | changes, "state": "resources/states/state.safetensors", "record": "record.parquet",
         "folder": FOLDER},
        MODEL,
    )  # fmt: skip


JOBS = {
    "generate": Job("generate", ["resources/miniworld"], params={"seed": 0}),
    "fetch": Job("fetch", [MANIFEST], [], {"source": {"source": "folder"}, "folder": FOLDER, "contents": {}}, BASE),
    "prepare": Job("prepare", [PREPARED], [], {"data_root": Path("../data"), "passages": Places(())}, {"task": "rte"}),
    "tune": tune(),
    "predict": Job(
        "predict", [PREDICTED], {"base": MANIFEST, "model": [WEIGHTS], "tasks": [PREPARED]},
        {"suite": WHOLE["suites"]["plain"], "folder": FOLDER}, PART,
    ),
    "score": Job(
        "score", {"scores": SCORED, "rows": ITEMS}, {"predictions": PREDICTED},
        {"statistics": WHOLE["statistics"], "stemmer": False, "further": []}, PART,
    ),
    "gather": Job("gather", ["results/scores.parquet"], {"parts": [SCORED]}, {"table": "scores"}, {"table": "scores"}),
    "gather items": Job("gather", [GATHERED], {"parts": [ITEMS]}, {"table": "items"}, {"table": "items"}),
    "analyse": Job(
        "analyse", ["results/analyses/analysis=performance/part.parquet"], {"rows": GATHERED, "imported": []},
        {"groups": {}, "statistics": WHOLE["statistics"]}, {"analysis": "performance"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a study after each of its jobs, from good input; not to be changed."""
    transformers.utils.logging.disable_progress_bar()
    place = tmp_path_factory.mktemp("sound") / "place"
    (place / "study").mkdir(parents=True)
    shutil.copytree(checkpoints["olmo"].path, place / "steps" / "step10")
    for split in ("train", "validation"):
        path = place / "data" / "rte" / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in GOOD))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place / "study")
        for job in JOBS.values():
            assert job.run() is None
    return place


def test_what_is_passed_on_tells_no_whole_path(sound: Path) -> None:
    """The base lies in a folder, which the jobs after `fetch` know by its whole path."""
    study = sound / "study"
    assert str(sound).encode() in (study / MANIFEST).with_name("place.json").read_bytes()
    made = [path for folder in ("results", WEIGHTS) for path in (study / folder).rglob("*") if path.is_file()]
    assert len(made) > 10 and not [path for path in made if str(sound).encode() in path.read_bytes()]
    assert checkpoints.identity(checkpoints.read_base(study / MANIFEST))["folder"] == "step10"


# --- jobs --------------------------------------------------------------------------------------------------------------

Damage = Callable[[], object]


def rows(*changes: dict[str, Any] | str | bytes) -> Damage:
    """The good rows, then others: a good row changed, or a line as it stands."""

    def damage() -> None:
        lines = [json.dumps(row) for row in GOOD[:2]]
        for number, change in enumerate(changes, start=2):
            lines.append(json.dumps(GOOD[number] | change) if isinstance(change, dict) else change)
        ROWS.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))

    return damage


def without(field: str) -> str:
    """A good row without a field."""
    return json.dumps({name: value for name, value in GOOD[2].items() if name != field})


def text(path: str | Path, content: str | bytes) -> Damage:
    """A file with another content."""
    return lambda: Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(path: str | Path, keep: int) -> Damage:
    """A file of which the first bytes are left."""
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:keep])


def gone(path: str | Path) -> Damage:
    """A file that is not there."""
    return lambda: Path(path).unlink()


def setting(path: Path, **changes: Any) -> Damage:
    """A JSON file with other entries."""
    return lambda: path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def weights(change: Callable[[dict[str, torch.Tensor]], object], path: Path = STEP / "model.safetensors") -> Damage:
    """Weights that something is done to."""

    def damage() -> None:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return damage


def other_columns() -> None:
    """A part of another version, which lacks a column."""
    table = pq.ParquetFile(SCORED).read()
    pq.write_table(table.drop_columns("error"), SCORED)
    checksums.place(Path(SCORED)).unlink()


def foreign(path: str) -> Damage:
    """A Parquet file that no job made."""

    def damage() -> None:
        pq.write_table(pq.ParquetFile(path).read().replace_schema_metadata({}), path)
        checksums.place(Path(path)).unlink()

    return damage


def in_place_of(path: str) -> Damage:
    """A folder where a file should be written."""
    return lambda: (Path(path) / "inside").mkdir(parents=True)


INTEGERS = "model.layers.0.mlp.up_proj.weight"
SHARDS = STEP / "model.safetensors.index.json"
ROW3 = "../data/rte/train.jsonl, row 3: "


@dataclass(frozen=True)
class Case:
    """What is wrong, in which job it comes to light, and the beginning of the line about it, after the job's keys."""

    rule: str
    damage: Damage
    line: str
    job: Job | None = None


CASES = {
    # checkpoints
    "a pickle instead of safetensors": Case(
        "fetch",
        lambda: (STEP / "model.safetensors").rename(STEP / "pytorch_model.bin"),
        "../steps/step10: holds pickled weights only (pytorch_model.bin); convert to safetensors",
    ),
    "truncated safetensors": Case(
        "fetch", cut(STEP / "model.safetensors", 5000), "../steps/step10/model.safetensors: damaged or"
    ),
    "noise as safetensors": Case(
        "fetch",
        text(STEP / "model.safetensors", b"\x93" * 999),
        "../steps/step10/model.safetensors: damaged or cut short",
    ),
    "empty safetensors": Case(
        "fetch", text(STEP / "model.safetensors", b""), "../steps/step10/model.safetensors: damaged or"
    ),
    "no weights": Case(
        "fetch", gone(STEP / "model.safetensors"), "../steps/step10: weights are missing; expected model."
    ),
    "no config": Case("fetch", gone(STEP / "config.json"), "../steps/step10: config.json is missing"),
    "config that is no JSON": Case(
        "fetch", cut(STEP / "config.json", 30), "../steps/step10/config.json: not JSON in UTF-8: "
    ),
    "config that is not UTF-8": Case(
        "fetch", text(STEP / "config.json", b'{"a": "\xe9"}'), "../steps/step10/config.json: not JSON in UTF-8: "
    ),
    "config that is a list": Case(
        "fetch", text(STEP / "config.json", "[]"), "../steps/step10/config.json: expected a JSON object"
    ),
    "missing tokenizer": Case(
        "fetch", gone(STEP / "tokenizer.json"), "../steps/step10: the tokenizer is missing; expected one"
    ),
    "code in the repository": Case(
        "fetch",
        setting(STEP / "config.json", auto_map={"AutoModelForCausalLM": "code.Model"}),
        "../steps/step10/config.json: 'auto_map' asks for code from the checkpoint, which is never run",
    ),
    "a tokenizer that is code": Case(
        "fetch",
        setting(STEP / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.T", None]}),
        "../steps/step10/tokenizer_config.json: 'auto_map' asks for code",
    ),
    "an index that leaves its folder": Case(
        "fetch",
        lambda: (
            gone(STEP / "model.safetensors")(),
            text(SHARDS, '{"weight_map": {"a": "../../secret.safetensors"}}')(),
        ),
        "../steps/step10/model.safetensors.index.json: names ../../secret.safetensors, which is not in the folder",
    ),
    "weights of whole numbers": Case(
        "fetch",
        weights(lambda tensors: tensors.update({INTEGERS: tensors[INTEGERS].to(torch.int8)})),
        f"../steps/step10/model.safetensors: {INTEGERS} is of type I8; allowed: F16, BF16, F32, F64",
    ),
    "a step that went away": Case(
        "fetch",
        lambda: STEP.rename(STEP.with_name("step11")),
        "../steps/step10: no such folder; expected a checkpoint",
    ),
    "a checkpoint that went away": Case("tune", lambda: shutil.rmtree(STEP), "no such folder; expected a checkpoint"),
    "config of another architecture": Case(
        "tune",
        setting(STEP / "config.json", model_type="gpt_neox", architectures=["GPTNeoXForCausalLM"]),
        "weights do not fit config.json: ",
    ),
    "config of no architecture": Case(
        "tune", setting(STEP / "config.json", model_type="nothing"), "the model cannot be loaded: "
    ),
    "config of another size": Case(
        "tune", setting(STEP / "config.json", intermediate_size=48), "the model cannot be loaded: "
    ),
    "a weight too few": Case(
        "tune",
        weights(lambda tensors: tensors.pop(INTEGERS)),
        f"weights do not fit config.json: 1 missing, such as {INTEGERS}",
    ),
    "a tokenizer larger than the model": Case(
        "tune", setting(STEP / "config.json", vocab_size=20), "the model cannot be loaded: "
    ),
    "a tokenizer without EOS": Case(
        "tune", setting(STEP / "tokenizer_config.json", eos_token=None), "the tokenizer has no EOS to end a text with"
    ),
    "a tokenizer that is empty": Case("tune", text(STEP / "tokenizer.json", "{}"), "the tokenizer cannot be loaded: "),
    "tuned weights cut short": Case(
        "predict", lambda: cut(f"{WEIGHTS}/model.safetensors", 4000)(), f"{WEIGHTS}/model.safetensors: does not match"
    ),
    # rows
    "empty data set": Case(
        "prepare", text(ROWS, ""), "../data: split 'train' of task 'rte' has no rows; expected at least one"
    ),
    "missing split": Case(
        "prepare",
        gone(ROWS),
        "../data/rte/train.jsonl: split 'train' of task 'rte' is missing; expected one JSON object a line",
    ),
    "a label outside the set": Case(
        "prepare", rows({"label": 2}), ROW3 + "field 'label': found 2, expected one of 0, 1"
    ),
    "a hidden label": Case("prepare", rows({"label": -1}), ROW3 + "field 'label': found -1, expected one of 0, 1"),
    "a label as text": Case(
        "prepare", rows({"label": "1"}), ROW3 + "field 'label': found '1', expected a value of type int"
    ),
    "a label that is no number": Case(
        "prepare", rows({"label": float("nan")}), ROW3 + "field 'label': found nan, expected"
    ),
    "a null": Case(
        "prepare", rows({"sentence2": None}), ROW3 + "field 'sentence2': found None, expected text that is not blank"
    ),
    "a blank": Case(
        "prepare", rows({"sentence2": "  "}), ROW3 + "field 'sentence2': found '  ', expected text that is not blank"
    ),
    "a field too few": Case(
        "prepare", rows(without("sentence1")), ROW3 + "field 'sentence1': found None, expected a value: the"
    ),
    "a number as text": Case(
        "prepare", rows({"sentence1": 7}), ROW3 + "field 'sentence1': found 7, expected text that is not blank"
    ),
    "a truth value as a number": Case(
        "prepare", rows({"label": True}), ROW3 + "field 'label': found True, expected a value of type"
    ),
    "half a character": Case(
        "prepare",
        rows('{"sentence1": "a\\ud83d", "sentence2": "b", "label": 0, "idx": 9}'),
        ROW3 + "field 'sentence1': found 'a\\ud83d', expected valid Unicode, unlike character 2",
    ),
    "rows that are not UTF-8": Case("prepare", rows(b'{"sentence1": "\xe9"}'), ROW3 + "not a JSON object in UTF-8: "),
    "a byte-order mark": Case(
        "prepare", text(ROWS, "\ufeff{}"), "../data/rte/train.jsonl, row 1: not a JSON object in UTF-8: "
    ),
    "a row cut short": Case("prepare", rows('{"sentence1": "A c'), ROW3 + "not a JSON object in UTF-8: "),
    "a row that is a list": Case("prepare", rows("[1, 2]"), ROW3 + "found a JSON list, expected an object"),
    "nothing but blank lines": Case(
        "prepare", text(ROWS, "\n \r\n"), "../data: split 'train' of task 'rte' has no rows; expected at least one"
    ),
    "a number of five thousand digits": Case(
        "prepare", rows('{"label": 1' + "0" * 5000 + "}"), ROW3 + "not a JSON object in UTF-8: Exceeds the limit"
    ),
    "duplicate ids": Case(
        "prepare",
        rows({"idx": 1}),
        ROW3 + "field 'idx': '1' is already used by ../data/rte/train.jsonl, row 2; expected a unique",
    ),
    "nesting without end": Case("prepare", rows("[" * 100_000), ROW3 + "not a JSON object in UTF-8: "),
    # jobs' own files
    "a manifest cut short": Case("tune", lambda: cut(MANIFEST, 40)(), f"{MANIFEST}: does not match its checksum in "),
    "prepared rows cut short": Case(
        "tune", lambda: cut(PREPARED, 900)(), f"{PREPARED}: does not match its checksum in "
    ),
    "half-written predictions": Case(
        "score", lambda: cut(PREDICTED, 900)(), f"{PREDICTED}: does not match its checksum in "
    ),
    "predictions of nobody": Case(
        "score", lambda: foreign(PREDICTED)(), f"{PREDICTED}: has no record of how it was made; delete it"
    ),
    "empty predictions": Case("score", text(PREDICTED, b""), f"{PREDICTED}: does not match its checksum in "),
    "half-written scores": Case("gather", lambda: cut(SCORED, 900)(), f"{SCORED}: does not match its checksum in "),
    "scores of another version": Case(
        "gather", other_columns, f"{SCORED}: column 'error' is missing, so another version of Tunecast wrote it"
    ),
    "text as Parquet": Case("analyse", text(GATHERED, "items"), f"{GATHERED}: does not match its checksum in "),
    "a folder in the way": Case(
        "gather",
        in_place_of("results/scores.parquet"),
        "results/scores.parquet: cannot be written: Is a directory; fix it",
    ),
    # recipes that only the model or the rows show to be wrong
    "adapters of layers that are not there": Case(
        "tune",
        lambda: None,
        "recipes/lora_modules: ['q_prj'] cannot be adapted in OlmoForCausalLM: ",
        tune(method="lora", lora_modules=["q_prj"]),
    ),
    "no room for an answer": Case("tune", lambda: None, "row train/", tune(max_tokens=1)),
    "a learning rate without measure": Case(
        "tune", lambda: None, "tuning stopped at step ", tune(learning_rate=1.0e30, warmup=0.0)
    ),
}


@pytest.fixture
def study(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sound study to damage, as working directory."""
    place = shutil.copytree(sound, tmp_path / "place")
    monkeypatch.chdir(place / "study")
    # A manifest names the folder of its checkpoint: that of the copy.
    assert JOBS["fetch"].run() is None
    return place


def clear(job: Job) -> None:
    """Take away what a job makes."""
    for path in job.outputs:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("name", CASES)
def test_bad_input_of_a_job(name: str, sound: Path, study: Path) -> None:
    case = CASES[name]
    job = case.job or JOBS[case.rule]
    clear(job)
    case.damage()
    if case.rule == "tune" and "manifest" not in name:  # what is damaged was so when it was fetched
        JOBS["fetch"].run()
    line = job.run()
    check_refused(job, line, case.line)
    mend(sound, study)
    clear(job)
    assert JOBS[case.rule].run() is None
    assert all(path.exists() for path in job.outputs)


def mend(sound: Path, study: Path) -> None:
    """The study as it was before it was damaged."""
    shutil.rmtree(study)
    shutil.copytree(sound, study)
    os.chdir(study / "study")
    assert JOBS["fetch"].run() is None


def check_refused(job: Job, line: str | None, expected: str) -> None:
    """One line that names job and place, in the log as well; nothing made and nothing half-written."""
    keys = " ".join([job.rule, *(f"{key}={value}" for key, value in job.wildcards.items())])
    assert line is not None and "\n" not in line, line
    assert line.startswith(f"{keys}: ") and expected in line, line
    assert f" {line}\n" in job.log.read_text(), "the log says the same"
    assert "Traceback" not in job.log.read_text()
    assert not [path for path in job.outputs if path.is_file() or (path / "config.json").exists()]
    assert not list(Path().rglob(".*unfinished*"))


@pytest.mark.parametrize("rule", JOBS)
def test_a_full_disk(rule: str, study: Path) -> None:
    """No file may be longer than the first lines of a log."""
    job = JOBS[rule]
    clear(job)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        line = job.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert line is not None and "\n" not in line, line
    assert re.search(r": (results|resources)/\S+: cannot be written: File too large; fix it, then run again$", line), (
        line
    )
    assert not [path for path in job.outputs if path.exists()]
    assert not list(Path().rglob(".*unfinished*"))
    assert job.run() is None


@pytest.mark.parametrize("rule", ["prepare", "tune", "predict"])
def test_a_huge_row_is_read_and_cut(rule: str, study: Path) -> None:
    """A row of two hundred thousand characters is no bad input: it is cut like any other that is too long."""
    huge = GOOD[0] | {"sentence1": "A cat sleeps. " * 15_000}
    for split in ("train", "validation"):
        ROWS.with_stem(split).write_text("".join(json.dumps(huge | {"idx": row}) + "\n" for row in range(8)))
    for name in ("prepare", rule):
        assert JOBS[name].run() is None
    if rule == "predict":
        assert pq.ParquetFile(PREDICTED).read().column("truncated").to_pylist() == [True] * 4


# --- the same through Snakemake ----------------------------------------------------------------------------------------

# A process without the rights that make root read and write everything.
UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]
IS_ROOT = os.geteuid() == 0
CAN_LOSE_RIGHTS = not IS_ROOT or (
    shutil.which("setpriv") and not subprocess.run([*UNPRIVILEGED, "true"], capture_output=True).returncode
)
needs_rights = pytest.mark.skipif(
    not CAN_LOSE_RIGHTS, reason="root reads and writes everything, and setpriv is not here"
)


def snakemake(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the study of a place as somebody to whom rights mean something."""
    command = [*(UNPRIVILEGED if IS_ROOT else []), *running.command(place, *arguments)]
    return subprocess.run(command, cwd=place, env=running.ENVIRONMENT, capture_output=True, text=True)


UNUSABLE = {
    "../cut/step10/model.safetensors: damaged": lambda: cut("../cut/step10/model.safetensors", 999)(),
    "../code/step10/config.json: 'auto_map' asks for code": lambda: setting(
        Path("../code/step10/config.json"), auto_map={}
    )(),
    "../pickled/step10: holds pickled weights only": lambda: Path("../pickled/step10/model.safetensors").rename(
        "../pickled/step10/pytorch_model.bin"
    ),
    "../mute/step10: the tokenizer is missing": lambda: Path("../mute/step10/tokenizer.json").unlink(),
}
BROKEN = {
    "prepare task=rte": (lambda: rows({"label": -1})(), ROW3 + "field 'label': found -1, expected one of 0, 1"),
    "prepare task=boolq": (
        lambda: Path("../data/boolq/validation.jsonl").write_bytes(b"\xff"),
        "../data/boolq/validation.jsonl, row 1: not a JSON",
    ),
}
FAMILIES = ("cut", "code", "pickled", "mute")
MADE = [
    *(f"resources/bases/family={name}/step=10/base.json" for name in FAMILIES[:2]),
    *(f"resources/tasks/{name}.parquet" for name in ("rte", "boolq")),
]
BOOLQ = {"question": "do cats sleep", "passage": "Cats sleep.", "answer": True}
SCIQ = {"question": "Who sleeps?", "correct_answer": "cat", "support": ""} | {
    f"distractor{n}": "dog" for n in (1, 2, 3)
}


@pytest.fixture
def laid_out(sound: Path, tmp_path: Path) -> Path:
    """A study of four local families and three tasks that has not run."""
    families = {name: {"source": "folder", "path": f"../{name}"} for name in FAMILIES}
    suites = {"plain": {"tests": ["rte", "boolq", "sciq"]}}
    place = running.lay_out(tmp_path / "place", {"families": families, "data_root": "../data", "suites": suites})
    for name in families:
        shutil.copytree(sound / "steps", place / name)
    shutil.copytree(sound / "data", place / "data")
    for name, row in (("boolq", BOOLQ), ("sciq", SCIQ)):
        (place / "data" / name).mkdir()
        for split in ("train", "validation"):
            (place / "data" / name / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    return place


def test_checkpoints_that_cannot_be_used_are_all_told_before_anything_runs(
    laid_out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(laid_out / "study")
    for damage in UNUSABLE.values():
        damage()
    ended = running.run(laid_out)
    told = [line for line in ended.stderr.splitlines() if not line.startswith("Using workflow")]
    assert ended.returncode == 1 and len(told) == len(UNUSABLE)
    assert all(line.startswith(start) for line, start in zip(told, UNUSABLE, strict=True)), told
    assert not list(Path().glob("re*"))


def test_jobs_that_meet_bad_input_say_so_and_a_corrected_run_completes(
    laid_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shutil.copytree(laid_out, tmp_path / "whole")
    monkeypatch.chdir(laid_out / "study")
    for damage, _ in BROKEN.values():
        damage()
    ended = running.run(laid_out, "--keep-going", *MADE)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stdout + ended.stderr
    for job, (_, line) in BROKEN.items():
        told = next((text for text in ended.stderr.splitlines() if text.startswith(f"{job}: ")), ended.stderr)
        assert told.startswith(f"{job}: {line}")
    assert not list(Path("resources/tasks").glob("*"))
    shutil.rmtree(laid_out / "data")
    shutil.copytree(whole / "data", laid_out / "data")
    ended = running.run(laid_out, *MADE)
    assert ended.returncode == 0, ended.stderr
    assert all(Path(path).exists() for path in MADE)


@needs_rights
@pytest.mark.parametrize("closed", ["cut", "cut/step10", "cut/step10/config.json", "data/rte", "data/sciq/train.jsonl"])
def test_what_may_not_be_read_is_one_line_before_anything_runs(closed: str, laid_out: Path) -> None:
    (laid_out / closed).chmod(0)
    try:
        ended = snakemake(laid_out, "--dry-run")
    finally:
        (laid_out / closed).chmod(0o755)
    assert ended.returncode == 1
    (line,) = [line for line in (ended.stdout + ended.stderr).splitlines() if not line.startswith("Using workflow")]
    assert line.startswith(f"../{closed}") and ": Permission denied; expected a file or folder that can be read" in line


@pytest.mark.skipif(not IS_ROOT, reason="only root can mount a small disk")
def test_a_disk_that_is_full_is_told(laid_out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(laid_out / "study")
    ROWS.write_text(
        "".join(
            json.dumps(row | {"sentence1": os.urandom(999).hex(), "idx": n}) + "\n" for n, row in enumerate(GOOD * 9)
        )
    )
    disk = Path("resources/tasks")
    disk.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        ended = running.run(laid_out, "resources/tasks/rte.parquet")
        left = list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert ended.returncode == 1
    wanted = (
        "prepare task=rte: resources/tasks/rte.parquet: cannot be written: No space left on device; "
        "free space there or move the study to a larger disk, then run again"
    )
    assert wanted in ended.stderr.splitlines()
    assert left == []
