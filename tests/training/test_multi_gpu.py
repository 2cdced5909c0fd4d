"""Two processes on a CPU against one: losses, weights, states, predictions; and what is left when one of them fails."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import running
import torch
from safetensors.torch import load_file, save_file
from scripts import Job
from training.test_finetuning import METHODS, encoded, fresh, recipe, state

from workflow import task
from workflow.errors import StoppedError
from workflow.evaluation import multi_gpu as evaluation_gpus
from workflow.evaluation import prediction
from workflow.models import loading
from workflow.models.encoding import padding
from workflow.storage import tables
from workflow.study import config
from workflow.task import Example
from workflow.training import finetuning, multi_gpu, saved_state


def apart(one, other):
    """The largest difference between the weights of two models."""
    weights = dict(other.named_parameters())
    return max(float((parameter - weights[name]).detach().abs().max()) for name, parameter in one.named_parameters())


MODULES = {"workflow.training.multi_gpu", "workflow.evaluation.multi_gpu"}


def told_at(last):
    return lambda done, steps: os.kill(os.getpid(), signal.SIGTERM) if done == last else None


def workers(beside):
    """Numbers of the processes that work in a folder beside a path, the one that started them last of all."""
    found, folder = [], str(Path(beside).with_name(f".{Path(beside).name}."))
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = place.read_text().split("\0")
            if any(one.startswith(folder) for one in arguments) and MODULES & set(arguments):
                found.append(("workflow.jobs.processes" in arguments, int(place.parent.name)))
    return [number for _, number in sorted(found)]


@pytest.mark.slow
def test_two_processes_find_what_one_finds_from_its_state_and_to_its_state(checkpoints, tmp_path):
    """One process is stopped after the third step, two go on from there, until they are stopped; one does the rest.

    Batches are of four and, as an epoch's last, of one, with which the second process has nothing to do: the seventh.
    """
    checkpoint = checkpoints["olmo"]
    settings = recipe(save_every=100, epochs=4)
    work = (encoded(checkpoint.tokenizer), settings, 1, padding(checkpoint.tokenizer))
    plain, again = fresh(checkpoint), fresh(checkpoint)
    expected = finetuning.tune(plain, *work, state(tmp_path / "one"))

    kept, stopped = state(tmp_path / "two"), r"^told to stop after step \d+ of 28; the same command continues"
    with pytest.raises(StoppedError, match=stopped):
        finetuning.tune(fresh(checkpoint), *work, kept, told_at(2))
    with pytest.raises(StoppedError, match=stopped) as raised:
        multi_gpu.tune(fresh(checkpoint), work[0], settings | {"gpus": 2}, *work[2:], kept, told_at(8))
    assert 8 < int(str(raised.value).split()[5]) < 28
    assert [path.name for path in kept.path.parent.iterdir()] == ["state.safetensors"]
    history = finetuning.tune(again, *work, kept)
    for key in ("loss", "gradient_norm", "learning_rate", "tokens"):
        assert [row[key] for row in history] == pytest.approx([row[key] for row in expected], rel=1e-5), key
    assert apart(again, plain) < 1e-5


# Tunes until the third step; then Ctrl-C, of which a terminal tells a whole group of processes.
INTERRUPTED = """
import json, os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
from workflow.models import loading
from workflow.models.encoding import Masked
from workflow.training import multi_gpu, saved_state
checkpoint, folder, given = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
model, _ = loading.untouched({"path": checkpoint})
rows = [Masked(*row) for row in given["rows"]]
told = lambda done, steps: os.killpg(0, signal.SIGINT) if done == 3 else None
multi_gpu.tune(model, rows, given["recipe"], 1, given["pad"], saved_state.State(folder / "state.safetensors", "a"), told)
"""


@pytest.mark.faults
def test_an_interrupt_leaves_a_state_and_nothing_else(checkpoints, tmp_path):
    checkpoint = checkpoints["llama"]
    settings = recipe(save_every=1000, epochs=100, gpus=2)
    rows, pad = encoded(checkpoint.tokenizer), padding(checkpoint.tokenizer)
    given = json.dumps({"rows": rows, "recipe": settings, "pad": pad})
    command = [sys.executable, "-c", INTERRUPTED, str(checkpoint.path), str(tmp_path), given]
    search = os.environ | {"PYTHONPATH": str(running.ROOT)}
    ended = subprocess.run(command, env=search, start_new_session=True, capture_output=True, text=True)
    assert ended.stderr.rstrip().endswith("KeyboardInterrupt")
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    assert workers(tmp_path / "state.safetensors.shards") == []
    done = len(json.loads(state(tmp_path).facts()["standing"])["history"])
    assert 3 <= done < 700


@pytest.mark.parametrize("method", METHODS)
def test_tuned_weights_come_back_to_a_model_as_it_was(checkpoints, tmp_path, method):
    models = [fresh(checkpoints["llama"]) for _ in range(2)]
    settings = recipe(**METHODS[method])
    one, other = (finetuning.adapted(model, settings, 1) if method == "lora" else model for model in models)
    with torch.no_grad():
        for parameter in saved_state.trained(one).values():
            parameter += 0.5
    saved_state.write_weights(one, tmp_path / "weights.safetensors")
    assert 0.49 < apart(one, other) < 0.51
    multi_gpu.take_weights(other, tmp_path / "weights.safetensors")
    assert apart(one, other) == 0


# Predictions

PAIRS = [
    ("Ann has a cat.", "It can fly."), ("Bo saw an owl.", "The owl eats fish."), ("A man sleeps.", "A man runs."),
    ("Cy has a hen that sings a song.", "Cy has no hen."), ("A trout swims.", "It swims."),
]  # fmt: skip
QUESTIONS = [("What can fly?", ("the owl", "the trout", "a fox")), ("Who has a cat?", ("Ann", "Bo and Dora", "nobody"))]
LABELS = ("entailment", "neutral", "contradiction")
ROWS = {
    "rte": [
        Example({"premise": one, "hypothesis": other}, LABELS[place % 3], LABELS, place % 3)
        for place, (one, other) in enumerate(PAIRS)
    ],
    "arc_easy": [Example({"question": asked}, choices[1], choices, 1) for asked, choices in QUESTIONS],
    "xsum": [Example({"document": f"{one} {other}"}, one) for one, other in PAIRS[:3]],
    "nq_open": [Example({"question": "Who has a hen?"}, "Cy", ("Cy", "Cy himself"))],
}  # of the last there is none for the second process


def prepared(folder, name, **splits):
    """A prepared task of these rows: those of ROWS to test and, in another order, to train on, unless others are given."""
    read = task.load(name)
    rows = [
        {
            "id": f"{split}/{number}", "split": split, "fields": dict(row.fields), "choices": list(row.choices), "leads": [],
            "answer": row.answer, "gold": row.gold, "turns": [],
        }
        for split, examples in ({read.train: ROWS[name][::-1] * 2, read.test: ROWS[name]} | splits).items()
        for number, row in enumerate(examples)
    ]  # fmt: skip
    tables.write(rows, tables.EXAMPLES, folder / f"{name}.parquet")
    return str(folder / f"{name}.parquet")


def suite(tests, **changes):
    """A suite's block as a validated config holds it."""
    whole = config.validated(
        {"families": {"x": {"source": "folder", "path": "x"}}, "suites": {"s": {"tests": tests, **changes}}}
    )
    return whole["suites"]["s"]


def adapters(checkpoint, folder):
    """Adapters of random weights, saved as a tuning does."""
    model = finetuning.adapted(fresh(checkpoint), recipe(**METHODS["lora"]), 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return str(folder)


def check_alike(found, expected):
    """Rows agree in all but the last digits of log-probabilities."""
    for one, other in zip(found, expected, strict=True):
        for name in ("logprobs", "priors"):
            assert one[name] == pytest.approx(other[name], abs=1e-5, rel=0)
        assert one == other | {name: one[name] for name in ("logprobs", "priors")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "method", "settings"),
    [
        pytest.param("olmo", "full", suite(list(ROWS), shots=[0, 4], new_tokens=12), marks=pytest.mark.faults),
        ("gpt_neox", "lora", suite(list(ROWS), shots=[0, 4], new_tokens=12, batch_tokens=64)),
        pytest.param("olmo", "lora", suite(["rte"], shots=[0, 4], labels="constrained"), marks=pytest.mark.faults),
        (
            "llama",
            "full",
            suite(["rte", "xsum"], shots=[2, 0], labels="constrained", protocol="published", new_tokens=12),
        ),
    ],
    ids=["scored", "scored_lora", "constrained_lora", "published"],
)
def test_two_processes_predict_what_one_predicts(checkpoints, tmp_path, architecture, method, settings):
    checkpoint = checkpoints[architecture]
    base = {"path": str(checkpoint.path)}
    tuned = adapters(checkpoint, tmp_path / "adapters") if method == "lora" else None
    paths = {name: prepared(tmp_path, name) for name in settings["tests"]}
    read = {name: task.examples(name, path) for name, path in paths.items()}
    expected = list(prediction.predict(*loading.ready(base, tuned, "fp32"), settings, read))
    steps = []
    found = evaluation_gpus.predict(
        base, tuned, settings, paths, 2, tmp_path / "shards", lambda *step: steps.append(step)
    )
    check_alike(found, expected)
    assert len(found) == sum(len(ROWS[name]) for name in paths) * len(settings["shots"]) * len(settings["formats"])
    assert steps and not (tmp_path / "shards").exists()


@pytest.mark.slow
def test_a_row_that_fails_in_one_process_ends_the_job_with_its_line(checkpoints, tmp_path, monkeypatch):
    """Of five rows the second, which the second process predicts, has a token without weights; the first waits for it."""
    checkpoint = checkpoints["llama"]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(checkpoint.path, "base")
    weights = load_file("base/model.safetensors")
    [token, *_] = checkpoint.tokenizer(" 日本語", add_special_tokens=False)["input_ids"]
    weights["model.embed_tokens.weight"][token] = torch.nan
    save_file(weights, "base/model.safetensors", metadata={"format": "pt"})
    Path("base.json").write_text(json.dumps({"path": "base"}))
    rows = list(ROWS["rte"])
    rows[1] = Example({"premise": "日本語", "hypothesis": "It can fly."}, "neutral", LABELS, 1)
    job = Job(
        "predict", ["part.parquet"],
        {"base": "base.json", "model": [], "tasks": [prepared(tmp_path, "rte", validation=rows)]},
        {"suite": suite(["rte"]), "folder": None}, {"suite": "s"}, {"gpu": 2},
    )  # fmt: skip
    assert job.run().startswith("predict suite=s: row 'validation/1': log-probabilities [nan")
    assert not list(tmp_path.glob("*part*")) and workers("part.parquet.shards") == []


@pytest.mark.faults
def test_a_killed_process_ends_the_others(checkpoints, tmp_path):
    settings = suite(["rte", "xsum"], shots=[0, 1, 2, 3, 4], formats=["default", "io", "instruct"], new_tokens=40)
    paths = {name: prepared(tmp_path, name) for name in settings["tests"]}
    folder, killed = tmp_path / "shards", []

    def kill(done, steps):
        if not killed:
            killed.append(workers(folder)[0])
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(RuntimeError, match=r"^one of 2 processes was killed or failed"):
        evaluation_gpus.predict({"path": str(checkpoints["olmo"].path)}, None, settings, paths, 2, folder, kill)
    assert not list(tmp_path.glob("*shards*")) and workers(folder) == []


@pytest.mark.slow
def test_a_suite_s_gpus_are_asked_for_and_change_no_prediction(tmp_path):
    study = running.SMOKE | {"suites": {**running.SMOKE["suites"]}}
    study["suites"]["formats"] = study["suites"]["formats"] | {"gpus": 2}
    place = running.lay_out(tmp_path / "place", study)
    ended = running.run(place, "--dry-run", "--quiet", "host")
    assert ended.returncode == 0, ended.stderr
    asked = dict(
        re.findall(
            r"output: results/predictions/\S+suite=(\w+)/tests=\w+/part\.parquet\n(?:.+\n)*? +resources: .*\bgpu=(\d)",
            ended.stdout,
        )
    )
    assert asked == {"written": "1", "formats": "2", "published": "1"}
