"""Models that were fine-tuned elsewhere (block `adopted`): which model each folder or revision holds, by the keys of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from workflow.errors import StudyError
from workflow.models import checkpoints, revisions, tuned_elsewhere
from workflow.settings import Format, Study
from workflow.storage.files import csv_rows, json_object

STATED = ("family", "step", "train", "format", "seed")  # of a model: by the pattern, the table or the block
NUMBERS = ("step", "seed")
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Model:
    """A model that was tuned elsewhere. keys: MODEL_KEYS; folder, or repo and revision (None: main), say where it is."""

    keys: dict[str, Any]
    place: str
    folder: Path | None = None
    repo: str | None = None
    revision: str | None = None


def models(study: Study) -> list[Model]:
    """All models of a study that were tuned elsewhere, in the order of the config.

    Errors: StudyError naming the folder, row or revision whose keys are not stated or not sound, or that repeats a model.
    """
    found = [model for recipe, block in study.get("adopted", {}).items() for model in _of_block(recipe, block, study)]
    seen: dict[tuple[Any, ...], Model] = {}
    for model in found:
        first = seen.setdefault(tuple(model.keys.values()), model)
        if first is not model:
            raise StudyError(
                f"{model.place}: is the same model as {first.place}; give them other seeds or another name"
            )
    return found


def _of_block(recipe: str, block: Mapping[str, Any], study: Study) -> Iterator[Model]:
    """The models of one block."""
    place = f"config.yaml: adopted/{recipe}"
    given = [key for key in ("repo", "path", "table") if key in block]
    if given not in (["repo"], ["path"], ["table"], ["path", "table"], ["repo", "table"]):
        raise StudyError(f"{place}: found {' and '.join(given) or 'neither'}; expected path, repo or table")
    sources = _listed(place, block) if "table" in block else _named(place, block)
    taken = 0
    for where, stated, source in sources:
        known = {key: block[key] for key in STATED if key in block} | stated
        known = _with_base(where, known, source.get("folder"), study)
        if "steps" in block and known.get("step") not in block["steps"]:
            continue
        taken += 1
        yield Model(_keys(where, known, recipe, study), where, **source)
    if not taken:
        raise StudyError(
            f"{place}: no model in {block.get('table') or block.get('path') or block['repo']} is one of these"
        )


Source = tuple[
    str, dict[str, Any], dict[str, Any]
]  # where it is said, keys that are stated there, folder or repo and revision


def _named(place: str, block: Mapping[str, Any]) -> Iterator[Source]:
    """Sub-folders of a folder, or revisions of a repository, whose names match the pattern."""
    expression = revisions.compiled(f"{place}/pattern", block["pattern"])
    unknown = [name for name in expression.groupindex if name not in STATED]
    if unknown:
        raise StudyError(f"{place}/pattern: {unknown[0]!r} is not known; allowed: {', '.join(STATED)}")
    if "repo" in block:
        refs = revisions.looked_up(block["repo"])
        there = {ref: match for ref in sorted(refs) if (match := expression.fullmatch(ref))}
        for ref, match in there.items():
            yield f"{block['repo']} at {ref}", match.groupdict(), {"repo": block["repo"], "revision": ref}
        return
    root = Path(block["path"])
    if not root.is_dir():
        raise StudyError(f"{place}/path: {root} is not a folder; expected sub-folders {block['pattern']}")
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if match := expression.fullmatch(folder.name):
            yield str(folder), match.groupdict(), {"folder": folder}


def _listed(place: str, block: Mapping[str, Any]) -> Iterator[Source]:
    """Rows of a CSV table, each with the folder, or the repository and revision, of a model."""
    path = Path(block["table"])
    if path.is_absolute() or ".." in path.parts:
        raise StudyError(
            f"{place}/table: {str(path)!r} points outside the study's folder; expected a CSV file inside it"
        )
    if not path.is_file():
        raise StudyError(f"{path}: missing; expected the CSV file that adopted names")
    header, rows = csv_rows(path)
    allowed = (*STATED, "folder", "repo", "revision")
    for column in header:
        if column not in allowed:
            raise StudyError(f"{path}: column {column!r} is not known; allowed: {', '.join(allowed)}")
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        cells = {key: text.strip() for key, text in row.items() if text.strip()}
        stated = {key: cells[key] for key in STATED if key in cells}
        folder, repo = cells.get("folder"), cells.get("repo", block.get("repo"))
        if (folder is None) == (repo is None):
            raise StudyError(f"{where}: expected either a folder or a repo")
        if folder is None:
            yield where, stated, {"repo": repo, "revision": cells.get("revision")}
            continue
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise StudyError(
                f"{where}: folder {folder!r} points outside the folder of the models; expected one inside it"
            )
        yield where, stated, {"folder": Path(block.get("path", ".")) / folder}


def _with_base(where: str, known: dict[str, Any], folder: Path | None, study: Study) -> dict[str, Any]:
    """Keys with family and step as local adapters name their base, where nothing else states them."""
    lacking = [key for key in ("family", "step") if key not in known]
    if not lacking or folder is None or not tuned_elsewhere.is_adapter(folder):
        return known
    settings = json_object(folder / checkpoints.ADAPTER)
    found = [
        {"family": family, "step": step}
        for family, step in tuned_elsewhere.named_bases(settings, study["families"])
        if known.get("family", family) == family and str(known.get("step", step)) == str(step)
    ]
    if len(found) != 1:
        listed = ", ".join(f"step {base['step']} of {base['family']}" for base in found) or "none"
        raise StudyError(
            f"{where}: its base {settings.get('base_model_name_or_path')!r} is not one base of the study (found: {listed}); "
            f"state {' and '.join(lacking)}"
        )
    return {**known, **found[0]}


def _keys(where: str, known: Mapping[str, Any], recipe: str, study: Study) -> dict[str, Any]:
    """The keys of a model, checked."""
    for key in STATED:
        if key not in known:
            raise StudyError(f"{where}: {key} is not stated; expected it in the pattern, the table or the block")
    keys = {key: str(known[key]) for key in STATED}
    for key in NUMBERS:
        if not keys[key].isdecimal():
            raise StudyError(f"{where}: {key} is {keys[key]!r}, expected a whole number")
    if not NAME.fullmatch(keys["train"]) or keys["train"] in ("none", "all"):
        raise StudyError(f"{where}: train is {keys['train']!r}, expected the name of a task, or the word unknown")
    if keys["format"] not in get_args(Format):
        raise StudyError(f"{where}: format is {keys['format']!r}; allowed: {', '.join(get_args(Format))}")
    family, step = keys["family"], int(keys["step"])
    if family not in study["families"]:
        raise StudyError(f"{where}: family {family!r} is not known; allowed: {', '.join(study['families'])}")
    steps = checkpoints.steps(family, study["families"][family])
    if step not in steps:
        raise StudyError(
            f"{where}: step {step} is not a base of {family!r}; allowed: {', '.join(map(str, steps))}; to leave models out, "
            "set `steps`"
        )
    own = {"family": family, "step": step, "train": keys["train"], "format": keys["format"]}
    return {**own, "recipe": recipe, "seed": int(keys["seed"])}


def check(model: Model, study: Study) -> None:
    """StudyError unless a model in a local folder can be loaded safely, and names no other base than its own."""
    if model.folder is None:
        return
    tuned_elsewhere.check(model.folder)
    if tuned_elsewhere.is_adapter(model.folder):
        path = model.folder / checkpoints.ADAPTER
        base = model.keys["family"], model.keys["step"]
        tuned_elsewhere.check_base(str(path), tuned_elsewhere.check_settings(path), base, study["families"])
