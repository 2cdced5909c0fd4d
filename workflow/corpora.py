"""Pre-training text: folders of text domains, each with JSON Lines of documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow.errors import StudyError

GENERATED = "miniworld"


def folder(pretraining: Mapping[str, Any], data_root: str | None) -> Path:
    """The corpus folder of a family's `pretraining` block: the generated text, or a path that starts at `data_root`.

    Errors: StudyError for a relative path without data_root, one that leaves data_root, or a missing folder.
    """
    corpus = pretraining["corpus"]
    if corpus == GENERATED:
        return Path("resources/miniworld/text")
    if not Path(corpus).is_absolute() and data_root is None:
        raise StudyError(
            f"config.yaml: pretraining/corpus: {corpus!r} starts at data_root, which is not set; "
            "set data_root, or pass --config data_root=FOLDER"
        )
    path = Path(data_root or ".") / corpus
    if ".." in Path(corpus).parts:
        raise StudyError(f"config.yaml: pretraining/corpus: {corpus!r} leaves data_root; expected a folder inside it")
    if not path.is_dir():
        raise StudyError(f"{path}: no such folder; expected one sub-folder for each text domain (pretraining/corpus)")
    return path


def files(root: Path, domains: Sequence[str] | None) -> list[Path]:
    """The training file of each domain, all domains of the corpus when none are named, sorted.

    Errors: StudyError for a domain without `train.jsonl`, or no domain at all.
    """
    found = sorted(path.parent.name for path in root.glob("*/train.jsonl"))
    for name in domains or []:
        if name not in found:
            raise StudyError(
                f"{root}: no text domain {name!r} with a train.jsonl; allowed: {', '.join(found) or 'none'}"
            )
    if not found:
        raise StudyError(f"{root}: no text domain; expected sub-folders that hold a train.jsonl")
    return [root / name / "train.jsonl" for name in domains or found]


def documents(paths: Sequence[Path]) -> Iterator[str]:
    """The text of every document, file by file.

    Errors: StudyError naming file and row where `text` is missing or not a string.
    """
    for path in paths:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                yield _text(line, f"{path}, row {number}")


def _text(line: bytes, place: str) -> str:
    try:
        row = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StudyError(f"{place}: not a JSON object in UTF-8: {error}") from error
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str) or not text:
        raise StudyError(f"{place}: field 'text': found {text!r}, expected a text that is not empty")
    return text
