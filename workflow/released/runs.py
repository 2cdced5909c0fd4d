"""Evaluation results that already exist: the files of an import, the runs in them, and which base each run is of.

A reader (a module of `imports`) turns each file into `Run`s: one model, its scores, maybe its rows. Which family and step
a run is of comes from what the file itself states of the model, read by the patterns of the study; a file's name fills in
what the file leaves out, and where they differ the file is followed and the difference recorded. `score_rows` does the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, NamedTuple

from workflow import registry
from workflow.errors import StudyError, shown
from workflow.released import readers
from workflow.study import token_axis

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
DIGITS = {"step": r"[0-9]+", "seed": r"[0-9]+", "shots": r"[0-9]+", "tokens": r"[0-9]+(?:\.[0-9]+)?[KMBT]?"}
REVISIONS = ("step{step}", "step{step}-tokens{tokens}", "global_step{step}")  # where a study gives no pattern
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Score:
    """One metric of one test in a run.

    error: standard error; n: rows; chance: what guessing gives; better: `higher` or `lower`, None for what the metric's name
    says; part_of: a mean that the file itself has of several tests, this among them; primary: whether the file says that
    the test is read in this metric. None is what the file does not state.
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
    """What one file, or one row of it, holds of one model.

    place: for messages; model, revision: as the file names them; facts: what else it states that a pattern may name; date:
    when it was made, seconds since 1970, 0 for not known; rows: of scores that are means, (test, shots, metric) -> row -> value;
    remarks: what is to be known of the file; fields: what it states of the family.
    """

    place: str
    model: str
    revision: str | None
    scores: tuple[Score, ...]
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    date: float = 0.0
    rows: Mapping[tuple[str, int | None, str], Mapping[str, float]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


class Model(NamedTuple):
    """What a run is of: the keys of its cell, tokens seen, fields of the family."""

    family: str
    step: int
    train: str
    format: str
    recipe: str
    seed: int
    tokens: float | None
    fields: Mapping[str, str]


# Which files


def reader(block: Mapping[str, Any]) -> ModuleType:
    """The module that reads an import's files."""
    return registry.module(readers, block["reader"])


def cited(block: Mapping[str, Any]) -> str:
    """What an import is, as the study or its reader says."""
    return block.get("source") or reader(block).SOURCE


def input_files(block: Mapping[str, Any], root: str | None = None) -> list[str]:
    """The files that an import reads. root: the study's `released_root`."""
    return [str(path) for path in files(block, reader(block), root)]


def files(block: Mapping[str, Any], reader: ModuleType, root: str | None = None) -> list[Path]:
    """The files that an import reads, in order, those that it skips among them.

    Errors: StudyError for a folder that is not there or has no such file, and for a pattern that leaves it.
    """
    folder = place_of(block, root)
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
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    if not found:
        raise StudyError(f"{folder}: holds no file that fits {' or '.join(patterns)}; expected {reader.SOURCE}")
    return found


def place_of(block: Mapping[str, Any], root: str | None) -> Path:
    """The folder of an import; a relative one starts at `released_root` where the study has it."""
    path = Path(block["path"]).expanduser()
    return Path(root).expanduser() / path if root and not path.is_absolute() else path


def skipped(block: Mapping[str, Any], name: str) -> bool:
    """Whether a file, by its path below the import's folder, is one that the study leaves out."""
    return any(fnmatchcase(name, pattern) for pattern in block.get("skip", ()))


# What a run is of


@cache
def expression(pattern: str, place: str = "imports: models") -> re.Pattern[str]:
    """The expression behind a pattern: {name} for a part that is read, * for anything. place: of it in the config.

    Errors: StudyError for a brace that is none of a name, and for a name that is there twice.
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
            f"config.yaml: {place}: {pattern!r} is not allowed; allowed: names in braces, each once, as {{step}}"
        )
    return re.compile("".join(parts), re.DOTALL)


def model_of(run: Run, name: str, block: Mapping[str, Any]) -> tuple[Model, list[str]]:
    """What a run is of by the first pattern that its model fits, and what its file's name says otherwise.

    name: of the file, below the import's folder.
    Errors: StudyError where no pattern fits, and where neither the file nor its name gives the step.
    """
    for pattern in block.get("models") or [{}]:
        found = expression(pattern.get("model", "*")).fullmatch(run.model)
        revision = _revision(run, pattern)
        if found and revision is not None:
            parts = {key: str(value) for key, value in run.facts.items()} | found.groupdict() | revision
            return _model(run, name, pattern, parts)
    allowed = " or ".join(pattern.get("model", "*") for pattern in block.get("models", ()))
    raise StudyError(
        f"{run.place}: found model {shown(run.model)}, revision {shown(run.revision)}; expected one that a pattern of `models` "
        f"fits{': ' + allowed if allowed else ''}"
    )


def _revision(run: Run, pattern: Mapping[str, Any]) -> dict[str, str] | None:
    """The parts of a run's revision by a pattern; None where it does not fit."""
    if "revision" in pattern:
        found = expression(pattern["revision"]).fullmatch(run.revision or "")
        return found.groupdict() if found else None
    for own in REVISIONS:
        if found := expression(own).fullmatch(run.revision or ""):
            return found.groupdict()
    return {}


def _model(run: Run, name: str, pattern: Mapping[str, Any], parts: Mapping[str, str]) -> tuple[Model, list[str]]:
    by_name = expression(pattern["path"]).fullmatch(name) if "path" in pattern else None
    named = by_name.groupdict() if by_name else {}
    remarks = [
        f"its name says {key} {named[key]}, the file {parts[key]}"
        for key in named
        if key in parts and named[key] != parts[key]
    ]
    whole = {**named, **parts}
    step = _step(run, pattern, whole)
    spoken = said(name, "step")
    if spoken and step not in spoken and "step" not in named:
        remarks.append(f"its name says step {spoken[-1]}, the file {step}")
    family = (
        _named(run, pattern.get("family", "{family}" if "family" in whole else ""), whole)
        or run.model.rstrip("/").rsplit("/", 1)[-1]
    )
    clean = re.sub(r"[^a-z0-9_.-]+", "-", family.lower()).strip("-._")
    if not NAME.fullmatch(clean):
        raise StudyError(f"{run.place}: found {shown(family)} as the name of a family, expected letters and digits")
    asked = {key: value for key, value in whole.items() if key not in {*DIGITS, "family"} and key in _asked(pattern)}
    fields = {**run.fields, **asked}
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


def _asked(pattern: Mapping[str, Any]) -> set[str]:
    """The names in braces of a study's pattern."""
    return {
        name for key in ("model", "revision", "path") for name in re.findall(r"\{([a-z_]+)\}", pattern.get(key, ""))
    }


def _named(run: Run, template: str, parts: Mapping[str, str]) -> str:
    """A name from a template; StudyError where a part in braces is not known of the run."""
    for name in re.findall(r"\{([a-z_]+)\}", template):
        if name not in parts:
            raise StudyError(
                f"{run.place}: {template!r} needs {{{name}}}, which neither model {shown(run.model)} nor the file gives"
            )
        template = template.replace(f"{{{name}}}", parts[name])
    return template


def _step(run: Run, pattern: Mapping[str, Any], parts: Mapping[str, str]) -> int:
    """The training step of a run."""
    if "step" in parts:
        return int(float(parts["step"]))
    if "step" in pattern:
        return int(pattern["step"])
    if run.revision in (None, "", "main") and "main_step" in pattern:
        return int(pattern["main_step"])
    raise StudyError(
        f"{run.place}: model {shown(run.model)} at revision {shown(run.revision)} names no training step; expected `main_step` "
        "or a pattern with {step} in `models` of the import"
    )


def said(name: str, what: str) -> list[int]:
    """The steps or numbers of demonstrations that a file's name speaks of, folders first."""
    if what == "step":
        return [int(found) for found in re.findall(r"(?<![a-z])step[-_=]?([0-9]+)", name.lower())]
    words = "|".join(NUMBERS)
    return [
        int(digits) if digits else NUMBERS.index(word)
        for digits, word in re.findall(rf"(?<![a-z0-9])(?:([0-9]+)|({words}))[-_ ]?shots?(?![a-z])", name.lower())
    ]
