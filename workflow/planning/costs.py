"""Estimated cost of a study before it runs: jobs, GPU-hours and disk space, from its grid and the prepared rows of its tasks.

The estimate uses the usual rule of 2 operations per parameter and token for the forward pass and 6 with the
backward pass (Kaplan et al., 2020, section 2.1), at the speed that the study's `estimate` block states.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from workflow import task
from workflow.data import demonstrations, prompts
from workflow.errors import StudyError
from workflow.models import checkpoints
from workflow.planning.resources import BYTES_PER_TOKEN, FORWARD, TRAINING, fetched, listed, trained_here
from workflow.settings import Family, Study, Suite
from workflow.storage import tables
from workflow.study import adopted, grid
from workflow.task import KINDS, Example, Task
from workflow.training import task_mix

WEIGHT_BYTES = 4  # models are kept in fp32
PREDICTION_BYTES = 400  # of one row in a compressed part
START = 30.0  # seconds to load a model of a billion parameters
SAMPLED = 500  # rows whose length is measured
# Tokens of a prompt and of an answer, and choices, where a task's rows are not prepared: medians of Tunecast's public tasks.
TYPICAL = {
    "inference": (52.0, 2.4, 3.0),
    "paraphrase": (44.0, 0.6, 2.0),
    "choice": (35.0, 5.2, 4.0),
    "summary": (408.0, 29.5, 1.0),
    "question": (49.0, 8.4, 1.0),
    "answer": (23.0, 3.8, 1.0),
    "messages": (173.0, 0.0, 1.0),
    "classification": (44.0, 1.0, 2.0),
    "generation": (49.0, 29.5, 1.0),
}
# The same for the tasks of the generated mini world, whose sentences are short.
MINI = {
    "inference": (18.0, 2.4, 3.0),
    "paraphrase": (30.0, 0.6, 2.0),
    "choice": (11.0, 1.1, 4.0),
    "summary": (34.0, 10.4, 1.0),
    "question": (21.0, 6.9, 1.0),
}
MINI_ROWS = 200
TYPICAL_ROWS = 2000  # of a split that is not prepared and whose size the hub does not state
# The last line of a Snakemake benchmark file; after a full disk the file may be empty, which is no error.
SECONDS = re.compile(r"(?:.*\n)*(\d+(?:\.\d+)?)\t")
ESTIMATED = {"try_rate": grid.TRIAL_KEYS, "tune": grid.MODEL_KEYS, "predict": grid.PART_KEYS}


@dataclass(frozen=True)
class TaskSize:
    """Size of a task: training and test rows, tokens of a prompt and of an answer, choices (1 for free text)."""

    train: int
    test: int
    prompt: float
    answer: float
    choices: float


def size(read: Task, train: Sequence[tuple[str, Example]], test: Sequence[tuple[str, Example]]) -> TaskSize:
    """The size of a task: numbers of rows from the hub, else of the prepared rows; lengths from the prepared rows."""
    rows = [example for _, example in (test or train)[:SAMPLED]]
    counts = {"train": len(train), "test": len(test)}
    for role, split in (("train", read.train), ("test", read.test)):
        counts[role] = read.sizes.get(split or "", counts[role])
    if read.kind == "messages":
        texts = ["".join(turn.content for turn in row.turns) for row in rows]
        return TaskSize(**counts, prompt=_tokens(texts), answer=0.0, choices=1.0)
    asked = [prompts.prompt(read, row.fields, prompts.formats(read)[0]) for row in rows]
    choices = sum(max(1, len(row.choices)) for row in rows) / len(rows)
    return TaskSize(**counts, prompt=_tokens(asked), answer=_tokens([row.answer for row in rows]), choices=choices)


def sizes(names: Sequence[str], prepared: Path) -> dict[str, TaskSize]:
    """The size of each task: from its prepared rows, or the typical size of its kind if it is not prepared yet.

    prepared: folder of prepared tasks.
    """
    there = {name: prepared / f"{name}.parquet" for name in names}
    return {
        name: size(*task.examples(name, path)) if path.is_file() else _typical(name) for name, path in there.items()
    }


def _typical(name: str) -> TaskSize:
    """The assumed size of a task whose rows are not prepared."""
    read, generated = task.load(name), task.generated(name)
    number, lengths = (MINI_ROWS, MINI) if generated else (TYPICAL_ROWS, TYPICAL)
    train, test = (read.sizes.get(split or "", number) for split in (read.train, read.test))
    return TaskSize(train, test, *lengths[read.kind])


def _tokens(texts: Sequence[str]) -> float:
    """Mean tokens of texts."""
    return sum(len(text.encode()) for text in texts) / len(texts) / BYTES_PER_TOKEN


def estimate(study: Study, sizes: Mapping[str, TaskSize]) -> pd.DataFrame:
    """One row for each rule: columns rule, jobs, gpu_hours, gigabytes (of outputs that are kept); the sum last.

    sizes: of every task of the study. Errors: StudyError for a family whose parameters the config does not state.
    """
    parameters = _parameters(study)
    parts, trials = grid.parts(study), grid.trials(study)
    tuned, elsewhere = grid.tuned_here(study), adopted.models(study)
    weights = {name: number * WEIGHT_BYTES / 1e9 for name, number in parameters.items()}
    on_gpu = hours_on_gpu(study)
    tunings = [on_gpu(_tuning(study, row, sizes, parameters)) for row in tuned.to_dict("records")]
    tried = [on_gpu(_tuning(study, row, sizes, parameters)) for row in trials.to_dict("records")]
    predicted = [on_gpu(_prediction(study, row, sizes, parameters)) for row in parts.to_dict("records")]
    rows_predicted = sum(_rows_predicted(study, row, sizes) for row in parts.to_dict("records"))
    bases = grid.bases(study)
    rows = [
        ("fetch", len(bases), 0.0, bases["family"].map(weights).sum()),
        ("prepare", len(grid.tasks(study)), 0.0, 0.0),
        ("try_rate", len(trials), sum(tried), 0.0),
        ("choose", _searches(study, trials), 0.0, 0.0),
        ("tune", len(tuned), sum(tunings), tuned["family"].map(weights).sum() * study["keep_weights"]),
        # From the hub at most the size of their bases: adapters are small, and which they are is known once they are pinned.
        ("take", len(elsewhere), 0.0, sum(weights[model.keys["family"]] for model in elsewhere if model.repo)),
        ("predict", len(parts), sum(predicted), rows_predicted * PREDICTION_BYTES / 1e9),
        ("score", len(parts), 0.0, 0.0),
    ]
    table = pd.DataFrame([row for row in rows if row[1]], columns=["rule", "jobs", "gpu_hours", "gigabytes"])
    table.loc[len(table)] = ["all", *table.drop(columns="rule").sum()]
    return table.astype({"jobs": int})


class Work(NamedTuple):
    """What a job computes: operations of what it reads and trains on, tokens that it generates, and processes to start.

    parameters: of its model, which generates the tokens.
    """

    parameters: float
    operations: float = 0.0
    written: float = 0.0
    starts: int = 1


class Stage(NamedTuple):
    """GPU-hours of the jobs of one rule that are left to run, their number, and the number of measured jobs used."""

    rule: str
    jobs: int
    hours: float
    measured: int


def planned(
    study: Study,
    jobs: Mapping[str, Sequence[Mapping[str, str]]],
    resources: Path,
    benchmarks: Path,
    hours: Callable[[Work], float] | None = None,
) -> Iterator[Stage]:
    """Estimated hours of the jobs left to run: from their work, times the ratio of measured to estimated finished jobs.

    jobs: rule -> keys of each; resources: folder of prepared tasks and bases; benchmarks: folder of Snakemake's measurements;
    hours: of a job's work, by default GPU-hours at the speed that the study's `estimate` block states.
    A rule outside ESTIMATED takes the mean of its measured jobs, and is left out if there is none.
    Errors: StudyError for a family whose number of parameters is neither in the config nor known from a fetched base.
    """
    hours = hours or hours_on_gpu(study)
    wanted = {rule: keys_of_jobs for rule, keys_of_jobs in jobs.items() if rule in ESTIMATED}
    work = _worker(study, resources) if wanted else None
    for rule, keys_of_jobs in jobs.items():
        known = _measured(benchmarks / rule, _paths(study, rule))
        if work and rule in wanted:
            before = sum(hours(work(rule, keys)) for keys, _ in known)
            scale = sum(taken * grid.gpus(study, keys) for keys, taken in known) / before if known else 1.0
            yield Stage(
                rule, len(keys_of_jobs), scale * sum(hours(work(rule, keys)) for keys in keys_of_jobs), len(known)
            )
        elif known:
            mean = sum(taken for _, taken in known) / len(known)
            yield Stage(rule, len(keys_of_jobs), len(keys_of_jobs) * mean, len(known))


class Price(NamedTuple):
    """GPU-hours of one job: estimated before any run; and measured or, before it runs, expected from measured jobs."""

    estimated: float
    expected: float


def prices(
    study: Study, rule: str, jobs: Sequence[Mapping[str, str]], resources: Path, benchmarks: Path
) -> list[Price]:
    """The price of each job of a rule in ESTIMATED. resources, benchmarks: as in `planned`.

    Errors: StudyError for a family whose number of parameters is not known.
    """
    work, hours = _worker(study, resources), hours_on_gpu(study)
    taken = {
        grid.path(keys, ESTIMATED[rule]): hours_taken * grid.gpus(study, keys)
        for keys, hours_taken in _measured(benchmarks / rule, _paths(study, rule))
    }
    estimates = [hours(work(rule, keys)) for keys in jobs]
    places = [grid.path(keys, ESTIMATED[rule]) for keys in jobs]
    known = [(taken[path], hours_taken) for path, hours_taken in zip(places, estimates, strict=True) if path in taken]
    scale = (
        sum(hours_taken for hours_taken, _ in known) / sum(hours_taken for _, hours_taken in known) if known else 1.0
    )
    return [
        Price(hours_taken, taken.get(path, scale * hours_taken))
        for path, hours_taken in zip(places, estimates, strict=True)
    ]


def measured_hours(folder: Path, paths: Sequence[str]) -> float:
    """Wall time in hours of the jobs of a rule with these hive paths that were measured. folder: the rule's measurements."""
    return sum(hours_taken for _, hours_taken in _measured(folder, set(paths)))


def _paths(study: Study, rule: str) -> set[str] | None:
    """Hive paths of a rule's jobs in the present study; other measured jobs may belong to removed parts. None: all count."""
    tables = {"try_rate": grid.trials, "tune": grid.models, "predict": grid.parts}
    if rule not in tables:
        return None
    return {grid.path(row, ESTIMATED[rule]) for row in tables[rule](study).to_dict("records")}


def _measured(folder: Path, paths: set[str] | None) -> list[tuple[dict[str, str], float]]:
    """Keys and hours of wall time of the measured jobs of a rule; paths: those that count, all if None."""
    measured = []
    for file in sorted(folder.rglob("*.tsv")):
        path = file.relative_to(folder).with_suffix("").as_posix()
        seconds = SECONDS.match(file.read_text(encoding="utf-8", errors="replace"))
        if seconds and (paths is None or path in paths):
            measured.append((tables.keys_of(file.relative_to(folder)), float(seconds[1]) / 3600))
    return measured


def _worker(study: Study, resources: Path) -> Callable[[str, Mapping[str, str]], Work]:
    """A function of rule and keys that returns the work of a job; cached, since many jobs share the same values."""
    known, parameters = sizes(grid.tasks(study), resources / "tasks"), _parameters(study, resources / "bases")

    @functools.cache
    def tuning(family: str, train: str, recipe: str) -> Work:
        return _tuning(study, {"family": family, "train": train, "recipe": recipe}, known, parameters)

    @functools.cache
    def predicting(family: str, train: str, suite: str, tests: str) -> Work:
        part = {"family": family, "train": train, "suite": suite, "tests": tests}
        return _prediction(study, part, known, parameters)

    def work(rule: str, keys: Mapping[str, str]) -> Work:
        if rule == "predict":
            return predicting(*(keys[name] for name in ("family", "train", "suite", "tests")))
        return tuning(keys["family"], keys["train"], keys["recipe"])

    return work


def _parameters(study: Study, bases: Path | None = None) -> dict[str, float]:
    """Parameters of each family's models. bases: folder of the manifests of fetched ones."""
    return {name: parameters_of(study, name, bases) for name in study["families"]}


def _searches(study: Study, trials: pd.DataFrame) -> int:
    """Number of learning rates that are chosen."""
    by_recipe = trials.groupby("recipe")
    return sum(len(rows[grid.choice_keys(study, str(name))].drop_duplicates()) for name, rows in by_recipe)


def parameters_of(study: Study, name: str, bases: Path | None = None) -> float:
    """Parameters of a family's models: from the config, computed if it is trained here, or those of the family it starts from.

    Otherwise those of a fetched base, or those that the safetensors files of a local folder list.
    """
    stated, block = study["estimate"]["parameters"], study["families"][name].get("pretraining")
    if name in stated:
        return stated[name]
    if study["families"][name]["source"] == "merged":
        return parameters_of(study, study["families"][name]["family"], bases)
    if block and "continue_from" not in block:
        return trained_here(block).parameters
    if block and "family" in block["continue_from"]:
        return parameters_of(study, block["continue_from"]["family"], bases)
    for manifest in sorted(bases.glob(f"family={name}/*/base.json")) if bases else ():
        return fetched(str(manifest)).parameters
    if study["families"][name]["source"] == "folder" and (counted := _in_folder(name, study["families"][name])):
        return counted
    raise StudyError(f"config.yaml: estimate/parameters: {name!r} is missing; expected the model's parameters")


@functools.cache
def _header_sum(file: Path) -> int:
    """Numbers that the safetensors files of a folder hold, from their headers alone."""
    return sum(listed(path) for path in sorted(file.glob("*.safetensors")))


def _in_folder(name: str, family: Family) -> int:
    """Parameters of the last checkpoint of a family in a local folder; 0 without safetensors files that can be read."""
    folder = checkpoints.folder(name, family, max(checkpoints.steps(name, family)))
    try:
        return 0 if folder is None else _header_sum(folder)
    except (OSError, ValueError):
        return 0  # the job that reads the weights says what is wrong with them


def _tuning(
    study: Study, model: Mapping[str, Any], sizes: Mapping[str, TaskSize], parameters: Mapping[str, float]
) -> Work:
    """The work of one fine-tuning."""
    recipe = grid.of_mix(study["recipes"][model["recipe"]], model["train"])
    if "mix" in recipe:
        rows, _ = task_mix.numbers({name: sizes[name].train for name in recipe["mix"]}, recipe)
    else:
        size = sizes[model["train"]]
        rows = {model["train"]: min(recipe.get("examples", int(recipe.get("fraction", 1) * size.train)), size.train)}
    lengths = {name: min(recipe["max_tokens"], sizes[name].prompt + sizes[name].answer) for name in rows}
    tokens = recipe["epochs"] * sum(number * lengths[name] for name, number in rows.items())
    number = parameters[model["family"]]
    return Work(number, TRAINING * number * tokens, starts=recipe["gpus"])


def _prediction(
    study: Study, part: Mapping[str, Any], sizes: Mapping[str, TaskSize], parameters: Mapping[str, float]
) -> Work:
    """The work of one part of a cell."""
    suite, number = study["suites"][part["suite"]], parameters[part["family"]]
    operations = written = 0.0
    for test, _, shots in _evaluations(study, part):
        rows = _limited(suite, sizes[test])
        read, generated = _row_tokens(suite, task.load(test), sizes[test], shots, study["estimate"]["context"])
        operations += FORWARD * number * rows * read
        written += rows * generated
    return Work(number, operations, written, suite["gpus"])


def _rows_predicted(study: Study, part: Mapping[str, Any], sizes: Mapping[str, TaskSize]) -> int:
    """Rows of the predictions of one part of a cell."""
    return sum(_limited(study["suites"][part["suite"]], sizes[test]) for test, _, _ in _evaluations(study, part))


def _evaluations(study: Study, part: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Test, format and number of few-shot examples of each evaluation of a part."""
    suite = study["suites"][part["suite"]]
    return (
        row
        for test in grid.part_tests(suite, part["train"], part["tests"])
        for row in itertools.product([test], suite["formats"], demonstrations.shots(test, suite["shots"]))
    )


def _limited(suite: Suite, size: TaskSize) -> int:
    """Test rows of a task that a suite evaluates."""
    return min(suite.get("limit", size.test), size.test)


def _row_tokens(suite: Suite, test: Task, size: TaskSize, shots: int, context: int) -> tuple[float, float]:
    """Tokens read and written for one row of a test."""
    prompt = min(context, shots * (size.prompt + size.answer) + size.prompt)
    method = KINDS[test.kind].method
    if test.lm_eval and method == "answer":
        return prompt, test.lm_eval.new_tokens
    if method == "rank":
        return size.choices * (prompt + size.answer), 0.0
    if method == "answer":  # written, and the reference answer read
        return 2 * prompt + size.answer, suite["new_tokens"]
    if method == "label" and suite["labels"] == "score":
        return prompt + size.answer, 0.0
    if method == "label" and suite["labels"] == "constrained":
        from workflow.models.engine.constrained import BEAMS  # imports torch, which Snakemake's environment may lack

        return prompt, KINDS[test.kind].new_tokens * BEAMS
    return prompt, KINDS[test.kind].new_tokens if method == "label" else suite["new_tokens"]


def hours_on_gpu(study: Study) -> Callable[[Work], float]:
    """A function that returns the GPU-hours of work at the speed that the study's `estimate` block states.

    Several GPUs share the work, which leaves the GPU-hours the same.
    """
    speed = study["estimate"]
    return lambda work: (
        (work.operations / speed["flops"] + work.written / speed["written"] + START * work.starts) / 3600
    )
