"""Existing evaluation results: the files of an import, the runs in them, and the base of each run.

A reader (a module of `readers`) turns each file into `Run`s: one model with its scores and possibly its rows. The family and
step of a run come from the model's name in the file, matched by the patterns of the study. The file's own name fills in what
is missing; if they contradict each other, the file's content wins and the difference is recorded. `score_rows` does the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, NamedTuple

from workflow import registry
from workflow.errors import StudyError, shown
from workflow.released import readers
from workflow.settings import Import, ModelPattern
from workflow.study import token_axis

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
DIGITS = {"step": r"[0-9]+", "seed": r"[0-9]+", "shots": r"[0-9]+", "tokens": r"[0-9]+(?:\.[0-9]+)?[KMBT]?"}
REVISIONS = ("step{step}", "step{step}-tokens{tokens}", "global_step{step}")  # if a study has no pattern
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Score:
    """One metric of one test in a run.

    error: standard error; n: rows; chance: expected score of guessing; better: `higher` or `lower`, None for the direction
    that the metric's name implies; part_of: a mean in the file over several tests, this one included; primary: whether the
    file declares this the test's primary metric. None means that the file does not state it.
    """

    test: str
    metric: str
    value: float
    shots: int | None = None
    error: float | None = None
    n: int | None = None
    chance: float | None = None
    better: str | None = None
    part_of: str | None = None
    primary: bool = False


@dataclass(frozen=True)
class Run:
    """The results of one model in one file, or in one row of it.

    location: for messages; model, revision: as named in the file; facts: further values that a pattern may use; date:
    seconds since 1970, 0 if unknown; rows: for scores that are means, (test, shots, metric) -> row -> value; remarks: notes
    on the file; fields: config fields of the family.
    """

    location: str
    model: str
    revision: str | None
    scores: tuple[Score, ...]
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    date: float = 0.0
    rows: Mapping[tuple[str, int | None, str], Mapping[str, float]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


class Model(NamedTuple):
    """The model of a run: the keys of its cell, pre-training tokens, config fields of the family."""

    family: str
    step: int
    train: str
    format: str
    recipe: str
    seed: int
    tokens: float | None
    fields: Mapping[str, str]


# Files


def reader(block: Import) -> ModuleType:
    """Return the module that reads an import's files."""
    return registry.module(readers, block["reader"])


def cited(block: Import) -> str:
    """Return the citation of an import, from the study or its reader."""
    return block.get("source") or reader(block).SOURCE


def input_files(block: Import, root: str | None = None) -> list[str]:
    """Return the files that an import reads. root: the study's `released_root`."""
    return [str(path) for path in files(block, reader(block), root)]


def files(block: Import, reader: ModuleType, root: str | None = None) -> list[Path]:
    """Return the files of an import in order, skipped ones included.

    Errors: StudyError for a missing folder, a folder without such files, and a pattern that leaves the folder.
    """
    folder = folder_of(block, root)
    if hasattr(reader, "FILES"):
        return [folder / name for name in reader.FILES]
    patterns = block.get("files") or reader.PATTERNS
    for pattern in patterns:
        if PurePath(pattern).is_absolute() or ".." in PurePath(pattern).parts:
            raise StudyError(
                f"config.yaml: imports: files: {pattern!r} leaves the folder of the import; expected one inside it"
            )
    if not folder.is_dir():
        raise StudyError(f"{folder}: is not a folder; expected {reader.SOURCE}")
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    if not paths:
        raise StudyError(f"{folder}: has no file that matches {' or '.join(patterns)}; expected {reader.SOURCE}")
    return paths


def folder_of(block: Import, root: str | None) -> Path:
    """Return the folder of an import; a relative one is below the study's `released_root`, if it has one."""
    path = Path(block["path"]).expanduser()
    return Path(root).expanduser() / path if root and not path.is_absolute() else path


def skipped(block: Import, name: str) -> bool:
    """Return whether the study skips a file. name: its path below the import's folder."""
    return any(fnmatchcase(name, pattern) for pattern in block.get("skip", ()))


# Models of runs


@cache
def expression(pattern: str, key_path: str = "imports: models") -> re.Pattern[str]:
    """Return a pattern as an expression: {name} captures a part, * matches anything. key_path: of the pattern in the config.

    Errors: StudyError for a stray brace, and for a name that occurs twice.
    """
    parts, names = [], []
    for literal, name, star in re.findall(r"([^{}*]+)|\{([a-z_]+)\}|(\*)", pattern):
        if star:
            parts.append(".*")
        elif name:
            names.append(name)
            body = DIGITS.get(name, "[^/@]+?")
            edges = ("(?<![0-9])", "(?![0-9])") if name in DIGITS else ("", "")
            parts.append(f"{edges[0]}(?P<{name}>{body}){edges[1]}")
        else:
            parts.append(re.escape(literal))
    if re.search(r"[{}]", re.sub(r"\{[a-z_]+\}", "", pattern)) or len(set(names)) < len(names):
        raise StudyError(
            f"config.yaml: {key_path}: {pattern!r} is not allowed; allowed: names in braces, each once, as {{step}}"
        )
    return re.compile("".join(parts), re.DOTALL)


def model_of(run: Run, name: str, block: Import) -> tuple[Model, list[str]]:
    """Return the model of a run by the first matching pattern, and remarks on contradictions with the file's name.

    name: of the file, below the import's folder.
    Errors: StudyError if no pattern matches, and if neither the file nor its name gives the step.
    """
    for pattern in block.get("models") or [ModelPattern(model="*")]:
        match = expression(pattern.get("model", "*")).fullmatch(run.model)
        revision = _revision(run, pattern)
        if match and revision is not None:
            parts = {key: str(value) for key, value in run.facts.items()} | match.groupdict() | revision
            return _model(run, name, pattern, parts)
    allowed = " or ".join(pattern.get("model", "*") for pattern in block.get("models", ()))
    raise StudyError(
        f"{run.location}: found model {shown(run.model)}, revision {shown(run.revision)}; expected a match of a pattern in "
        f"`models`{': ' + allowed if allowed else ''}"
    )


def _revision(run: Run, pattern: ModelPattern) -> dict[str, str] | None:
    """Return the captured parts of a run's revision; None if the pattern does not match."""
    if "revision" in pattern:
        match = expression(pattern["revision"]).fullmatch(run.revision or "")
        return match.groupdict() if match else None
    for candidate in REVISIONS:
        if match := expression(candidate).fullmatch(run.revision or ""):
            return match.groupdict()
    return {}


def _model(run: Run, name: str, pattern: ModelPattern, parts: Mapping[str, str]) -> tuple[Model, list[str]]:
    by_name = expression(pattern["path"]).fullmatch(name) if "path" in pattern else None
    named = by_name.groupdict() if by_name else {}
    remarks = [
        f"its name says {key} {named[key]}, the file {parts[key]}"
        for key in named
        if key in parts and named[key] != parts[key]
    ]
    whole = {**named, **parts}
    step = _step(run, pattern, whole)
    steps_in_name = numbers_in_name(name, "step")
    if steps_in_name and step not in steps_in_name and "step" not in named:
        remarks.append(f"its name says step {steps_in_name[-1]}, the file {step}")
    family = (
        _named(run, pattern.get("family", "{family}" if "family" in whole else ""), whole)
        or run.model.rstrip("/").rsplit("/", 1)[-1]
    )
    clean = re.sub(r"[^a-z0-9_.-]+", "-", family.lower()).strip("-._")
    if not NAME.fullmatch(clean):
        raise StudyError(f"{run.location}: found {shown(family)} as the name of a family, expected letters and digits")
    extra = {key: value for key, value in whole.items() if key not in {*DIGITS, "family"} and key in _asked(pattern)}
    fields = {**run.fields, **extra}
    seen: float | None
    if "tokens_per_step" in pattern:
        seen = step * float(pattern["tokens_per_step"])
    else:
        seen = token_axis.number(whole["tokens"]) if "tokens" in whole else None
    seed = 0 if "{seed}" in pattern.get("family", "") else int(whole.get("seed", pattern.get("seed", 0)))
    tuned = "train" in pattern
    keys = (
        pattern.get("train", "none"),
        pattern.get("format", "default") if tuned else "none",
        pattern.get("recipe", "tuned") if tuned else "none",
    )
    return Model(clean, step, *keys, seed, seen, fields), remarks


def _asked(pattern: ModelPattern) -> set[str]:
    """Return the names in braces in a study's pattern."""
    templates = (pattern.get("model", "*"), pattern.get("revision", ""), pattern.get("path", ""))
    return {name for template in templates for name in re.findall(r"\{([a-z_]+)\}", template)}


def _named(run: Run, template: str, parts: Mapping[str, str]) -> str:
    """Fill a template; StudyError if a part in braces is not known for the run."""
    for name in re.findall(r"\{([a-z_]+)\}", template):
        if name not in parts:
            raise StudyError(
                f"{run.location}: {template!r} needs {{{name}}}, which neither model {shown(run.model)} nor the file gives"
            )
        template = template.replace(f"{{{name}}}", parts[name])
    return template


def _step(run: Run, pattern: ModelPattern, parts: Mapping[str, str]) -> int:
    """Return the training step of a run."""
    if "step" in parts:
        return int(float(parts["step"]))
    if "step" in pattern:
        return int(pattern["step"])
    if run.revision in (None, "", "main") and "main_step" in pattern:
        return int(pattern["main_step"])
    raise StudyError(
        f"{run.location}: model {shown(run.model)} at revision {shown(run.revision)} names no training step; expected "
        "`main_step` or a pattern with {step} in `models` of the import"
    )


def optional_object(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under a key of a results file; an empty one where there is none."""
    value = entry.get(key)
    return value if isinstance(value, Mapping) else {}


def mean_chance(guesses: Sequence[float | None]) -> float | None:
    """The mean accuracy of guessing over rows; None unless it is known of each row."""
    known = [guess for guess in guesses if guess is not None]
    return sum(known) / len(known) if known and len(known) == len(guesses) else None


def numbers_in_name(name: str, what: str) -> list[int]:
    """Return the steps (what="step") or numbers of few-shot examples in a file's name, folders first."""
    if what == "step":
        return [int(digits) for digits in re.findall(r"(?<![a-z])step[-_=]?([0-9]+)", name.lower())]
    words = "|".join(NUMBERS)
    return [
        int(digits) if digits else NUMBERS.index(word)
        for digits, word in re.findall(rf"(?<![a-z0-9])(?:([0-9]+)|({words}))[-_ ]?shots?(?![a-z])", name.lower())
    ]
