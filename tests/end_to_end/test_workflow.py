"""The real Snakefile: the smoke study's results, what each change costs, what a kill leaves, what a bad job says."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import running
from conftest import made_once
from running import SMOKE

from workflow.storage import tables

Change = Callable[[Path], None]

LABEL_METRICS = ["accuracy", "chance", "macro_f1", "majority", "most_predicted"]
METRICS = {
    "mini_facts": ["accuracy", "accuracy_per_token", "accuracy_per_byte", "chance"],
    "mini_inference": LABEL_METRICS,
    "mini_inference_ood": LABEL_METRICS,
    "mini_paraphrase": LABEL_METRICS,
    "mini_question": ["rouge_1", "rouge_2", "rouge_l"],
    "mini_summary": ["rouge_1", "rouge_2", "rouge_l"],
}
MODEL = ["family", "step", "train", "format", "recipe", "seed"]
CELL = [*MODEL, "suite"]
TEST = ["test", "test_format", "shots"]
PART = [*CELL, "tests"]
SCORE = [*CELL, *TEST, "metric"]


def parts(place: Path, folder: str) -> list[Path]:
    """All parts of a folder of results."""
    return sorted((place / "study" / "results" / folder).rglob("part.parquet"))


def keys(part: Path) -> dict[str, str]:
    """The keys that a part's path holds."""
    return dict(folder.split("=", 1) for folder in part.parent.parts if "=" in folder)


# --- results ---------------------------------------------------------------------------------------------------------


def expected_models() -> list[tuple[Any, ...]]:
    """The smoke study's models, from its config by plain loops."""
    models = [("tiny", step, "none", "none", "none", 0) for step in SMOKE["families"]["tiny"]["steps"]]
    for block in SMOKE["models"]:
        for step, train, recipe in itertools.product(block["steps"], block["train"], block["recipes"]):
            for seed in block.get("seeds", [0]):
                models.append(("tiny", step, train, "default", recipe, seed))
    return models


def put_to(suite: dict[str, Any], train: str) -> list[str]:
    """The tests that a model tuned on a task is put to; all of the suite for an untouched base."""
    if isinstance(suite["tests"], list):
        return suite["tests"]
    return suite["tests"].get(train, []) if train != "none" else list(itertools.chain(*suite["tests"].values()))


def expected_parts() -> list[tuple[Any, ...]]:
    """The smoke study's parts, from its config by plain loops: an untouched base's tests one by one where they differ by task."""
    found = []
    for name, suite in SMOKE["suites"].items():
        for model in expected_models():
            tests = put_to(suite, model[2])
            alone = model[2] == "none" and isinstance(suite["tests"], dict)
            found += [(*model, name, part) for part in (tests if alone else ["all"] if tests else [])]
    return found


def expected_scores() -> list[tuple[Any, ...]]:
    """The keys of the smoke study's scores, from its config by plain loops."""
    rows = []
    for name, suite in SMOKE["suites"].items():
        for model in expected_models():
            for test in put_to(suite, model[2]):
                for format in suite.get("formats", ["default"]):
                    for shots in suite.get("shots", [0]):
                        rows += [(*model, name, test, format, shots, metric) for metric in metrics_of(test, suite)]
    return rows


def metrics_of(test: str, suite: dict[str, Any]) -> list[str]:
    """A test's metrics; a prior is taken off labels that are compared, not written."""
    compared = METRICS[test] is LABEL_METRICS and suite.get("labels") != "generate"
    return [*METRICS[test], "accuracy_calibrated"] if compared else METRICS[test]


def test_a_second_run_has_nothing_to_do(changed: Path) -> None:
    ended = running.run(changed)
    assert ended.returncode == 0
    assert "Nothing to be done" in ended.stdout + ended.stderr


def test_scores_have_the_rows_of_the_grid_once(smoke: Path) -> None:
    scores = pq.read_table(smoke / "study/results/scores.parquet").to_pandas()
    found = list(scores[SCORE].itertuples(index=False, name=None))
    # 5 models x 17 metrics of 4 tests, 4 models x 2 tests x 3 formats x 2 shots x 6, 3 models x 9 of 2 tests.
    assert len(found) == 85 + 288 + 27
    assert sorted(found) == sorted(expected_scores())
    assert len(set(found)) == len(found)


def test_scores_have_keys_as_columns_of_the_right_types(smoke: Path) -> None:
    table = pq.read_table(smoke / "study/results/scores.parquet")
    assert table.column_names == [
        *SCORE,
        "value",
        "error",
        "low",
        "high",
        "n",
        "primary",
        "better",
        "part_of",
        "tokens",
    ]
    kinds = {name: pa.string() for name in SCORE} | dict.fromkeys(["step", "seed", "shots", "n"], pa.int64())
    kinds |= dict.fromkeys(["value", "error", "low", "high", "tokens"], pa.float64())
    kinds |= {"primary": pa.bool_(), "better": pa.string(), "part_of": pa.string()}
    assert {field.name: field.type for field in table.schema} == kinds
    assert table.drop_columns(["better", "part_of", "tokens"]).to_pandas().notna().all(axis=None)


def test_scores_are_shares_of_the_rows_asked_for(smoke: Path) -> None:
    scores = pq.read_table(smoke / "study/results/scores.parquet").to_pandas()
    assert scores[["value", "low", "high"]].stack().between(0, 1).all()
    assert (scores["low"] <= scores["high"]).all()
    assert scores.groupby("suite")["n"].agg(["min", "max"]).to_dict("index") == {
        "written": {"min": 8, "max": 8},
        "formats": {"min": 6, "max": 6},
        "published": {"min": 8, "max": 8},
    }


def test_scores_agree_with_the_stored_predictions(smoke: Path) -> None:
    scores = pq.read_table(smoke / "study/results/scores.parquet").to_pandas().set_index(SCORE)["value"]
    compared = 0
    for part in parts(smoke, "predictions"):
        found = keys(part)
        if found["suite"] != "formats":
            continue
        cell = tuple(int(found[name]) if name in ("step", "seed") else found[name] for name in CELL)
        for test, rows in pd.DataFrame(tables.rows(part)).groupby(TEST):
            right = [row.choices[int(np.argmax(row.logprobs))] == row.reference for row in rows.itertuples()]
            assert scores[(*cell, *test, "accuracy")] == pytest.approx(np.mean(right))
            compared += 1
    assert compared == 4 * 2 * 3 * 2


def test_each_cell_has_its_parts_whose_rows_are_unique(smoke: Path) -> None:
    for folder in ("predictions", "scores", "items"):
        found = [tuple(keys(part)[name] for name in PART) for part in parts(smoke, folder)]
        assert sorted(found) == sorted(tuple(map(str, part)) for part in expected_parts())
    tests = {"written": 4, "formats": 2, "published": 2}
    rows_of_a_test = {"written": 8, "formats": 3 * 2 * 6, "published": 8}
    for part in parts(smoke, "predictions"):
        rows, own = pd.DataFrame(tables.rows(part)), keys(part)
        assert len(rows) == rows_of_a_test[own["suite"]] * (tests[own["suite"]] if own["tests"] == "all" else 1)
        assert own["tests"] == "all" or set(rows["test"]) == {own["tests"]}
        assert not rows.duplicated([*TEST, "id"]).any()


def test_no_base_is_put_to_a_test_of_a_suite_twice(smoke: Path) -> None:
    put: list[tuple[str, ...]] = []
    for part in parts(smoke, "predictions"):
        own = keys(part)
        put += [
            (own["step"], own["suite"], test)
            for test in tables.read(part, ["test"])["test"].unique()
            if own["train"] == "none"
        ]
    assert len(put) == len(set(put)) == 2 * (4 + 2 + 2)


def test_no_part_holds_a_key_of_its_path(smoke: Path) -> None:
    found = parts(smoke, ".")
    assert {part.relative_to(smoke / "study" / "results").parts[0] for part in found} == {
        "predictions", "scores", "items", "histories", "analyses", "indicators", "losses",
        "pairs", "forecasts", "rankings", "importance",
    }  # fmt: skip
    for part in found:
        # An analysis pools over keys of cells, so they are columns of its rows; its own key is its name.
        assert not set(keys(part)) & set(pq.read_schema(part).names), part


def test_parts_record_how_they_were_made(smoke: Path) -> None:
    weights = smoke / "study/resources/pretrained/family=tiny/step=20/model.safetensors"
    hashed = hashlib.sha256(weights.read_bytes()).hexdigest()
    for part in [*parts(smoke, "predictions"), *parts(smoke, "scores"), *parts(smoke, "histories")]:
        facts = tables.recorded(part)
        assert facts["versions"]["torch"] == version("torch")
        assert facts["versions"]["transformers"] == version("transformers")
        assert {name: facts[name] for name in keys(part)} == keys(part)
        assert (facts["base"]["files"]["model.safetensors"]["sha256"] == hashed) == (facts["step"] == "20")
    for part in parts(smoke, "histories"):
        settings = tables.recorded(part)["recipe_settings"]
        assert settings == settings | SMOKE["recipes"][keys(part)["recipe"]]
        assert settings["version"] == 1
    for part in parts(smoke, "predictions"):
        suite = SMOKE["suites"][keys(part)["suite"]]
        own = keys(part)["tests"]
        suite = suite | {"tests": put_to(suite, keys(part)["train"]) if own == "all" else [own]}
        assert tables.recorded(part)["suite_settings"] == tables.recorded(part)["suite_settings"] | suite


def test_prepared_tasks_record_where_their_rows_come_from(smoke: Path) -> None:
    for name in METRICS:
        facts = tables.recorded(smoke / f"study/resources/tasks/{name}.parquet")
        assert (facts["task"], facts["version"], facts["source"]) == (name, 1, "resources/miniworld")


def test_histories_have_one_row_for_each_optimizer_step(smoke: Path) -> None:
    histories = pq.read_table(smoke / "study/results/histories.parquet").to_pandas()
    steps = {tuple(map(str, model)): rows["update"].tolist() for model, rows in histories.groupby(MODEL)}
    place = ("tiny", "20")
    assert steps == {
        (*place, "mini_inference", "default", "full", "0"): list(range(3)),  # 24 examples in batches of 8
        (*place, "mini_inference", "default", "full", "1"): list(range(3)),
        (*place, "mini_facts", "default", "lora", "0"): list(range(6)),  # two epochs of 20 examples in batches of 7
    }
    assert np.isfinite(histories[["loss", "gradient_norm"]]).all(axis=None)


def test_seeds_make_different_models(smoke: Path) -> None:
    folder = smoke / "study/resources/models/family=tiny/step=20/train=mini_inference/format=default/recipe=full"
    first, second = ((folder / f"seed={seed}/model.safetensors").read_bytes() for seed in (0, 1))
    assert first != second


def test_weights_are_safetensors_only(smoke: Path) -> None:
    kinds = {path.suffix for path in (smoke / "study/resources").rglob("*") if path.is_file()}
    assert ".safetensors" in kinds
    assert not kinds & {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


def test_figures_are_drawn(smoke: Path) -> None:
    for name in SMOKE["figures"]:
        drawn = smoke / "study/results/figures" / name
        assert drawn.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        pixels = matplotlib.image.imread(drawn.with_suffix(".png"))[..., :3]
        assert min(pixels.shape[:2]) > 100
        assert np.mean(pixels.min(axis=2) < 0.9) > 0.005  # ink on paper


# --- what a change costs ---------------------------------------------------------------------------------------------

SHOWN = {"recommend": 1, "audit": 1, "find": 1, "present": 1, "all": 1}
COHORT = {"assemble": 1, "pair": 1, "forecast": 1, "tabulate": 1, "gather": 4}  # pairs, forecasts, rankings, importance
ANALYSES = len(list((running.ROOT / "workflow/analysis/analyses").glob("[!_]*.py")))
TAIL = {**COHORT, **SHOWN, "analyse": ANALYSES, "gather": 3 + 4, "draw": 2, "summarise": 1}
TAIL_WITH_HISTORIES = TAIL | {"gather": 4 + 4}


def config(*path: str, **entries: Any) -> Change:
    """A change of the entries of one block of the config."""

    def change(place: Path) -> None:
        study = running.configured(place)
        block: Any = study
        for name in path:
            block = block[int(name) if isinstance(block, list) else name]
        block.update(entries)
        running.configure(place, study)

    return change


def edit(*paths: str) -> Change:
    """A change of files of the code that does something."""

    def change(place: Path) -> None:
        for path in paths:
            text = (place / path).read_text(encoding="utf-8")
            (place / path).write_text(text + "\nEDITED = True\n", encoding="utf-8")

    return change


def replace(path: str, old: str, new: str) -> Change:
    """A change of a piece of a file of the code."""

    def change(place: Path) -> None:
        text = (place / path).read_text(encoding="utf-8")
        assert old in text
        (place / path).write_text(text.replace(old, new), encoding="utf-8")

    return change


def add_figure(place: Path) -> None:
    """A new figure: its module, and its name in the config."""
    shutil.copy2(place / "workflow/report/figures/curves.py", place / "workflow/report/figures/arcs.py")
    config(figures=[*SMOKE["figures"], "arcs"])(place)


def comment(place: Path) -> None:
    """A comment at the end of every module, script and rules file."""
    for path in [*place.glob("workflow/**/*.py"), *place.glob("rules/*.smk")]:
        path.write_text(path.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")


GPU_STAGES = [
    f"workflow/{name}.py"
    for name in (
        "training/pretraining",
        "models/checkpoints",
        "models/loading",
        "models/encoding",
        "training/finetuning",
        "evaluation/prediction",
        "models/engine/losses",
        "models/engine/reading",
        "indicators/measuring",
        "indicators/measures/clm",
    )
]
ANOTHER_FAMILY = SMOKE["families"] | {"other": SMOKE["families"]["tiny"]}

COSTS: dict[str, tuple[Change, dict[str, int]]] = {
    "nothing": (lambda place: None, {}),
    "a kept step of a trained family": (
        config("families", "tiny", steps=[0, 10, 20]),
        {"fetch": 1, "measure": 1, "predict": 5, "score": 5, **TAIL, "gather": 4 + 4},
    ),
    "a family": (
        config(families=ANOTHER_FAMILY),
        {"pretrain": 3, "fetch": 2, "measure": 2, "tune": 3, "predict": 16, "score": 16, **TAIL, "gather": 5 + 4},
    ),
    "a seed": (
        config("models", "0", seeds=[0, 1, 2]),
        {"tune": 1, "predict": 2, "score": 2, **TAIL_WITH_HISTORIES},
    ),
    "a model in a suite": (
        config("suites", "formats", "tests", mini_facts=["mini_paraphrase"]),
        {"predict": 1, "score": 1, **TAIL},
    ),
    "a task in a suite, with a test of its own": (
        config("suites", "formats", "tests", mini_facts=["mini_paraphrase", "mini_question"]),
        # The model, and one test more of each base.
        {"predict": 1 + 2, "score": 1 + 2, **TAIL},
    ),
    "a suite": (
        config("suites", again={"tests": {"mini_facts": ["mini_question"]}, "limit": 4}),
        {"predict": 3, "score": 3, **TAIL},
    ),
    "one recipe": (
        config("recipes", "full", learning_rate=2.0e-3),
        {"tune": 2, "predict": 4, "score": 4, **TAIL_WITH_HISTORIES},
    ),
    "a recipe's version": (
        config("recipes", "lora", version=2),
        {"tune": 1, "predict": 2, "score": 2, **TAIL_WITH_HISTORIES},
    ),
    "a suite's version": (
        config("suites", "formats", version=2),
        {"predict": 6, "score": 6, **TAIL},
    ),
    "a task tuned on": (
        edit("workflow/tasks/mini_inference.py"),
        # Its out-of-domain partner builds on it.
        {"prepare": 2, "tune": 2, "predict": 9, "score": 9, **TAIL_WITH_HISTORIES},
    ),
    "a task only tested": (
        edit("workflow/tasks/mini_summary.py"),
        {"prepare": 1, "predict": 5, "score": 5, **TAIL},
    ),
    "the metrics": (edit("workflow/evaluation/metrics.py"), {"score": 16, **TAIL}),
    "an analysis": (
        edit("workflow/analysis/analyses/performance.py"),
        SHOWN | {"analyse": 1, "gather": 1, "draw": 2, "summarise": 1},
    ),
    "a figure": (edit("workflow/report/figures/curves.py"), {"draw": 1, "present": 1, "all": 1}),
    "which rows figures and findings show": (
        edit("workflow/report/selection.py"),
        {"draw": 2, "find": 1, "present": 1, "all": 1},
    ),
    "how tables are written in Markdown": (
        edit("workflow/storage/markdown.py"),
        {"summarise": 1, "recommend": 1, "tabulate": 1, "find": 1, "present": 1, "all": 1},
    ),
    "what seeds add to an uncertainty": (
        edit("workflow/analysis/seed_variance.py"),
        SHOWN | {"analyse": ANALYSES, "gather": 1, "draw": 2, "summarise": 1},
    ),
    "a new figure": (add_figure, {"draw": 1, "present": 1, "all": 1}),
    "an indicator": (
        config("indicators", masked={"measure": "span_corruption", "corpus": "miniworld", "documents": 4}),
        {**COHORT, **SHOWN, "measure": 2, "gather": 1 + 4},
    ),
    "how an indicator is read": (
        config("indicators", "ppl_clm", transform="neg_loss", per="byte"),
        {**COHORT, **SHOWN},
    ),
    "a folder of rows, of which the study reads none": (config(data_root="../rows"), {"present": 1, "all": 1}),
    "the code of GPU stages": (edit(*GPU_STAGES, "workflow/scripts/tune.py", "workflow/scripts/predict.py"), {}),
    "a comment in any module": (comment, {}),
    "a task's licence": (
        replace("workflow/tasks/mini_summary.py", 'train="train",', 'train="train", licence="MIT",'),
        {},
    ),
    # Of 16 parts the 8 of suite `formats` and the three of suite `written` have inference among them.
    "the prompt of a kind in a format": (
        replace("workflow/data/prompts.py", "### Inference: ", "### Label: "),
        {"tune": 2, "predict": 9, "score": 9, **TAIL_WITH_HISTORIES},
    ),
    "the prompt of a kind in a format that no suite has": (
        replace("workflow/data/prompts.py", "And the answer: {answer}", "Answer: {answer}"),
        {},
    ),
    "what ends what is written": (
        replace("workflow/data/prompts.py", '"io": ("\\n\\n",)', '"io": ("\\n",)'),
        {"predict": 6, "score": 6, **TAIL},
    ),
}


@pytest.mark.parametrize(("change", "cost"), COSTS.values(), ids=COSTS)
def test_a_change_costs_only_what_depends_on_it(changed: Path, change: Change, cost: dict[str, int]) -> None:
    change(changed)
    assert running.planned(changed) == cost


# --- a local family, and kills -----------------------------------------------------------------------------------------

SCORES = "results/scores.parquet"
LOCAL = {
    "families": {"local": {"source": "folder", "path": "../steps", "pattern": "step={step}"}},
    "recipes": {"long": {"examples": 100, "batch": 4, "epochs": 24, "max_tokens": 128, "save_every": 2}},
    "models": [{"train": ["mini_inference"], "recipes": ["long"]}],
    "suites": {"plain": {"tests": ["mini_inference"], "shots": [0, 4], "batch_tokens": 256}},
    "statistics": {"resamples": 100},
}
TUNED = "family=local/step=20/train=mini_inference/format=default/recipe=long/seed=0"
STATE = f"resources/states/{TUNED}.safetensors"
PREDICTING = f"logs/predict/{TUNED}/suite=plain/tests=all.log"


@pytest.fixture(scope="session")
def unbroken(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study of a local family, one checkpoint of the smoke study, after an unbroken run; not to be changed."""

    def make(place: Path) -> None:
        running.lay_out(place, LOCAL)
        shutil.copytree(smoke / "study/resources/pretrained/family=tiny/step=20", place / "steps/step=20")
        ended = running.run(place, SCORES)
        assert ended.returncode == 0, ended.stderr

    return made_once(tmp_path_factory, "unbroken", make)


def without(place: Path, copy: Path, *gone: str) -> Path:
    """A copy of a place whose study lacks some results."""
    shutil.copytree(place, copy)
    for name in (SCORES, f"results/scores/{TUNED}", f"results/items/{TUNED}", f"results/predictions/{TUNED}", *gone):
        found = copy / "study" / name
        shutil.rmtree(found) if found.is_dir() else found.unlink()
    (copy / "study" / PREDICTING).unlink()
    return copy


@pytest.fixture
def untuned(unbroken: Path, tmp_path: Path) -> Path:
    """A copy of the local study that has yet to tune its model, and to predict and score by it."""
    return without(
        unbroken,
        tmp_path / "place",
        f"resources/models/{TUNED}",
        f"results/histories/{TUNED}",
        f"logs/tune/{TUNED}.log",
    )


@pytest.fixture
def unpredicted(unbroken: Path, tmp_path: Path) -> Path:
    """A copy of the local study that has yet to predict and score by its tuned model."""
    return without(unbroken, tmp_path / "place")


def test_a_step_dropped_into_the_folder_of_a_family_is_all_that_runs(
    smoke: Path, unbroken: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(unbroken, tmp_path / "place")
    assert running.planned(place, SCORES) == {}
    shutil.copytree(smoke / "study/resources/pretrained/family=tiny/step=10", place / "steps/step=10")
    assert running.planned(place, SCORES) == {"fetch": 1, "tune": 1, "predict": 2, "score": 2, "gather": 1}


def begun(place: Path) -> subprocess.Popen[bytes]:
    """A run in a process group of its own."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(
        running.command(place, SCORES), cwd=place, env=running.ENVIRONMENT, start_new_session=True, **quiet
    )


def wait_for(there: Callable[[], bool], what: str) -> None:
    """Wait until something is so, at most two minutes."""
    end = time.monotonic() + 120
    while not there():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


def wait_for_tuning(place: Path) -> None:
    """Wait until tuning has saved a state."""
    wait_for((place / "study" / STATE).is_file, "a saved state")


def wait_for_predicting(place: Path) -> None:
    """Wait until the tuned model's predictions have begun."""
    log = place / "study" / PREDICTING
    wait_for(lambda: log.is_file() and "predict: " in log.read_text(), "predictions")


def job_with(run: subprocess.Popen[bytes], log: Path) -> int:
    """The process of the script that a run has started, as soon as it writes its log."""
    wait_for(lambda: log.is_file() and " begun: " in log.read_text(), "a job's start")
    return job_of(run)


def job_of(run: subprocess.Popen[bytes]) -> int:
    """The process of the one script that a run has started."""
    children = psutil.Process(run.pid).children()
    found = [child.pid for child in children if ".snakemake/scripts/" in " ".join(child.cmdline())]
    assert len(found) == 1, found
    return found[0]


def has_ended(process: int) -> bool:
    """Whether a process of another parent has ended, be it that nobody has taken note of it yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def check_same_results(place: Path, unbroken: Path) -> None:
    """Scores, predictions, history and weights are those of the unbroken run."""
    tuned = f"resources/models/{TUNED}/model.safetensors"
    assert (place / "study" / tuned).read_bytes() == (unbroken / "study" / tuned).read_bytes()
    check_same_rows(place, unbroken)


def check_same_rows(place: Path, unbroken: Path) -> None:
    """Scores, predictions and history are those of the unbroken run."""
    for name in (
        SCORES,
        *(f"results/{kind}/{TUNED}/suite=plain/tests=all/part.parquet" for kind in ("predictions", "items")),
    ):
        found, expected = (pq.read_table(root / "study" / name) for root in (place, unbroken))
        assert found.equals(expected), name
    found, expected = (
        pq.ParquetFile(root / f"study/results/histories/{TUNED}/part.parquet").read().drop_columns("seconds")
        for root in (place, unbroken)
    )
    assert found.equals(expected)


def first_update(place: Path) -> int:
    """The first optimizer step that the last tuning reports, counted from 1."""
    lines = (place / f"study/logs/tune/{TUNED}.log").read_text().splitlines()
    return int(next(line for line in lines if " tune: " in line).split(" tune: ")[1].split()[0])


def test_a_killed_tuning_is_continued_by_the_same_command(untuned: Path, unbroken: Path) -> None:
    run = begun(untuned)
    wait_for_tuning(untuned)
    os.kill(job_of(run), signal.SIGKILL)
    assert run.wait() == 1
    assert not (untuned / f"study/resources/models/{TUNED}").exists()
    assert running.run(untuned, SCORES).returncode == 0
    assert first_update(untuned) > 2
    assert first_update(unbroken) == 1
    assert not (untuned / "study" / STATE).exists()
    check_same_results(untuned, unbroken)


def reconfigured(place: Path, **recipe: Any) -> Path:
    """The place with another recipe of the local study's."""
    changed = running.configured(place)
    changed["recipes"]["long"] |= recipe
    running.configure(place, changed)
    return place


@pytest.mark.faults
def test_a_tuning_told_to_stop_saves_its_state_at_once_and_is_continued(untuned: Path, unbroken: Path) -> None:
    """SIGTERM is what Slurm sends; the schedule would not have saved anything before the end."""
    run = begun(reconfigured(untuned, save_every=1000))
    log = untuned / f"study/logs/tune/{TUNED}.log"
    job = job_with(run, log)
    wait_for(lambda: " tune: " in log.read_text(), "the first step")
    os.kill(job, signal.SIGTERM)
    assert run.wait() == 1
    assert (untuned / "study" / STATE).is_file()
    assert not (untuned / f"study/resources/models/{TUNED}").exists()
    (stopped,) = re.findall(
        r"recipe=long seed=0: told to stop after step (\d+) of 600; the same command", log.read_text()
    )
    assert running.run(untuned, SCORES).returncode == 0
    assert first_update(untuned) == int(stopped) + 1 > 1
    check_same_results(untuned, unbroken)


def test_ctrl_c_saves_the_state_of_a_tuning_and_the_last_line_says_that_the_command_goes_on(untuned: Path) -> None:
    """A terminal tells all processes at once; no job is said to have failed, and no traceback is shown."""
    reconfigured(untuned, save_every=1000)
    with (untuned / "told").open("w") as told:
        run = subprocess.Popen(
            running.command(untuned, SCORES), cwd=untuned, env=running.ENVIRONMENT, stdout=told, stderr=told,
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    log = untuned / f"study/logs/tune/{TUNED}.log"
    wait_for(lambda: log.is_file() and " tune: " in log.read_text(), "the first step")
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait() == 1
    text = (untuned / "told").read_text()
    assert text.splitlines()[-1].startswith("Stopped early. Run the same command to continue: ")
    assert "FAILED" not in text and "Traceback" not in text
    assert (untuned / "study" / STATE).is_file()


@pytest.mark.faults
def test_a_tuning_that_diverges_names_its_recipe_and_leaves_its_history(untuned: Path, unbroken: Path) -> None:
    """The history goes once the recipe has been mended."""
    reconfigured(untuned, learning_rate=1e30)
    line, _ = failure(untuned, f"results/histories/{TUNED}/part.parquet", f"logs/tune/{TUNED}.log")
    assert re.search(r"^tune .* recipe=long seed=0: tuning stopped at step \d+: the loss is (nan|inf|\d+)", line), line
    record = untuned / f"study/results/diverged/{TUNED}/part.parquet"
    rows, facts = tables.rows(record), tables.recorded(record)
    assert len(rows) > 1 and rows[0]["loss"] > 0 and rows[-1]["gradient_norm"] is None
    assert line.endswith(facts["error"])
    reconfigured(untuned, learning_rate=2e-6)
    assert running.run(untuned, SCORES).returncode == 0
    assert not record.exists()
    check_same_results(untuned, unbroken)


@pytest.mark.faults
def test_a_killed_prediction_is_made_again_by_the_same_command(unpredicted: Path, unbroken: Path) -> None:
    run = begun(unpredicted)
    wait_for_predicting(unpredicted)
    os.kill(job_of(run), signal.SIGKILL)
    assert run.wait() == 1
    assert parts(unpredicted, f"predictions/{TUNED}") == []
    assert running.run(unpredicted, SCORES).returncode == 0
    check_same_results(unpredicted, unbroken)


@pytest.mark.faults
def test_a_killed_snakemake_takes_an_unlock_and_its_job_ends_by_itself(untuned: Path, unbroken: Path) -> None:
    run = begun(untuned)
    wait_for_tuning(untuned)
    job = job_of(run)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    wait_for(lambda: has_ended(job), "the job that lived on")
    assert not (untuned / f"study/resources/models/{TUNED}").exists()
    refused = running.run(untuned, SCORES)
    assert refused.returncode == 1
    assert "--unlock" in refused.stderr
    assert running.run(untuned, "--unlock").returncode == 0
    assert running.run(untuned, SCORES).returncode == 0
    assert first_update(untuned) > 2
    check_same_results(untuned, unbroken)


@pytest.mark.faults
def test_what_a_job_made_without_its_snakemake_is_made_again(untuned: Path, unbroken: Path) -> None:
    run = begun(untuned)
    wait_for_tuning(untuned)
    job = job_of(run)
    os.kill(run.pid, signal.SIGSTOP)  # a Snakemake that takes no note of its job's end
    wait_for(lambda: has_ended(job), "the job's end")
    run.kill()
    run.wait()
    assert (untuned / f"study/resources/models/{TUNED}").is_dir()
    assert running.run(untuned, "--unlock").returncode == 0
    # What it wrote is not known to be whole, so the workflow profile has it made again.
    assert running.planned(untuned, SCORES) == {"tune": 1, "predict": 1, "score": 1, "gather": 1}
    assert running.run(untuned, SCORES).returncode == 0
    check_same_results(untuned, unbroken)


@pytest.mark.faults
def test_everything_killed_at_once_takes_an_unlock_and_the_same_command(unpredicted: Path, unbroken: Path) -> None:
    run = begun(unpredicted)
    wait_for_predicting(unpredicted)
    job = job_of(run)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    wait_for(lambda: has_ended(job), "the killed job")
    assert parts(unpredicted, f"predictions/{TUNED}") == []
    assert running.run(unpredicted, "--unlock").returncode == 0
    assert running.run(unpredicted, SCORES).returncode == 0
    check_same_results(unpredicted, unbroken)


# --- weights that do not stay --------------------------------------------------------------------------------------------


@pytest.mark.faults
def test_temporary_weights_give_the_same_scores_and_cost_a_tuning_when_a_suite_is_added(
    untuned: Path, unbroken: Path
) -> None:
    temporary = running.configured(untuned) | {"keep_weights": False}
    running.configure(untuned, temporary)
    assert running.run(untuned, SCORES).returncode == 0
    assert not list((untuned / "study/resources").rglob("**/recipe=long/**/*.safetensors"))
    check_same_rows(untuned, unbroken)
    assert running.planned(untuned, SCORES) == {}
    again = {"again": {"tests": ["mini_inference"], "limit": 4}}
    # A base and a model on the new suite; the model is tuned again, and so predicted again on the old one.
    running.configure(untuned, temporary | {"suites": temporary["suites"] | again})
    assert running.planned(untuned, SCORES) == {"tune": 1, "predict": 3, "score": 3, "gather": 1}
    kept = shutil.copytree(unbroken, untuned.parent / "kept")
    running.configure(kept, running.configured(kept) | {"suites": temporary["suites"] | again})
    assert running.planned(kept, SCORES) == {"predict": 2, "score": 2, "gather": 1}


@pytest.mark.faults
def test_a_second_run_beside_the_first_is_told_of_the_lock(unpredicted: Path, unbroken: Path) -> None:
    run = begun(unpredicted)
    job = job_with(run, unpredicted / "study" / PREDICTING)
    os.kill(job, signal.SIGSTOP)
    refused = running.run(unpredicted, SCORES)
    assert refused.returncode == 1
    told = refused.stdout + refused.stderr
    assert "Directory cannot be locked. Please make sure that no other Snakemake process" in told
    assert str(unpredicted / "study") in told and "Traceback" not in told
    assert running.run(unpredicted, "--dry-run", SCORES).returncode == 0, "looking is free"
    os.kill(job, signal.SIGCONT)
    assert run.wait() == 0, "the first goes on undisturbed"
    check_same_results(unpredicted, unbroken)


# --- jobs that fail ----------------------------------------------------------------------------------------------------

BROKEN = {
    "families": SMOKE["families"],
    "data_root": "../data",
    "suites": {"plain": {"tests": ["gpt3_nli"]}},
}
GOOD_ROW = {"text_a": "A man sleeps.", "text_b": "A man runs.", "label": 2}


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A study of a real task's rows in a local folder."""
    place = running.lay_out(tmp_path / "place", BROKEN)
    write_rows(place, GOOD_ROW)
    return place


def write_rows(place: Path, *rows: dict[str, Any]) -> None:
    """The rows of the study's task."""
    path = place / "data/gpt3_nli/train.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


DATE = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "  # that a line of a log begins with


def failure(place: Path, output: str, log: str) -> tuple[str, str]:
    """The line that a failing job prints, and its log."""
    ended = running.run(place, output)
    rule = log.split("/")[1]
    assert ended.returncode == 1
    assert "Traceback" not in ended.stdout + ended.stderr
    assert not (place / "study" / output).exists()
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith(f"{rule} ") and ": " in line]
    (told,) = [line for line in ended.stderr.splitlines() if line.startswith("FAILED ")]
    last = (place / "study" / log).read_text().strip().splitlines()[-1]
    assert told == f"FAILED {rule}, log {log}: {re.sub(DATE, '', last)}"
    return line, (place / "study" / log).read_text()


def test_a_row_that_does_not_fit_stops_prepare(broken: Path) -> None:
    write_rows(broken, GOOD_ROW, GOOD_ROW, GOOD_ROW | {"label": -1})
    line, log = failure(broken, "resources/tasks/gpt3_nli.parquet", "logs/prepare/gpt3_nli.log")
    reason = "../data/gpt3_nli/train.jsonl, row 3: field 'label': found -1, expected one of 0, 1, 2"
    assert line == f"prepare task=gpt3_nli: {reason}"
    assert log.endswith(f"{line}\n")


def test_pickled_weights_stop_the_study_at_its_start(broken: Path) -> None:
    (broken / "steps/step5").mkdir(parents=True)
    (broken / "steps/step5/pytorch_model.bin").write_bytes(b"pickled")
    (broken / "steps/step5/config.json").write_text("{}")
    running.configure(broken, BROKEN | {"families": {"pickled": {"source": "folder", "path": "../steps"}}})
    ended = running.run(broken)
    assert ended.returncode == 1
    reason = "../steps/step5: holds pickled weights only (pytorch_model.bin); convert to safetensors"
    assert any(line.endswith(reason) for line in ended.stderr.splitlines())
    assert not (broken / "study/logs/prepare").exists()


def test_an_error_nobody_foresaw_leaves_its_traceback_in_the_log_alone(broken: Path) -> None:
    module = broken / "workflow/tasks/gpt3_nli.py"
    module.write_text(module.read_text().replace("    gold = one_of(", "    1 / 0\n    gold = one_of("))
    line, log = failure(broken, "resources/tasks/gpt3_nli.parquet", "logs/prepare/gpt3_nli.log")
    assert line == ("prepare task=gpt3_nli: ZeroDivisionError: division by zero; see logs/prepare/gpt3_nli.log")
    assert "Traceback" in log
