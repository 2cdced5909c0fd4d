"""Pre-training text: folders of text domains, each with JSON Lines of documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workflow.errors import StudyError

GENERATED = "miniworld"


class Document(NamedTuple):
    """A text with its domain and an id of its own within the domain."""

    domain: str
    id: str
    text: str


def folder(block: Mapping[str, Any], data_root: str | None, place: str = "pretraining/corpus") -> Path:
    """The corpus folder of a family's `pretraining` or of an indicator: the generated text, or a path below `data_root`.

    place: of the key, for messages. Errors: StudyError for a relative path without data_root, one that leaves data_root, or
    a missing folder.
    """
    corpus = block["corpus"]
    if corpus == GENERATED:
        return Path("resources/miniworld/text")
    if not Path(corpus).is_absolute() and data_root is None:
        raise StudyError(
            f"config.yaml: {place}: {corpus!r} starts at data_root, which is not set; "
            "set data_root, or pass --config data_root=FOLDER"
        )
    path = Path(data_root or ".") / corpus
    if ".." in Path(corpus).parts:
        raise StudyError(f"config.yaml: {place}: {corpus!r} leaves data_root; expected a folder inside it")
    if not path.is_dir():
        raise StudyError(f"{path}: no such folder; expected one sub-folder for each text domain ({place})")
    return path


def files(root: Path, domains: Sequence[str] | None, split: str = "train") -> list[Path]:
    """The file of a split of each domain, all domains of the corpus that have it when none are named, sorted.

    Errors: StudyError for a domain without `<split>.jsonl`, or no domain at all.
    """
    name = f"{split}.jsonl"
    found = sorted(path.parent.name for path in root.glob(f"*/{name}"))
    for domain in domains or []:
        if domain not in found:
            raise StudyError(f"{root}: no text domain {domain!r} with a {name}; allowed: {', '.join(found) or 'none'}")
    if not found:
        raise StudyError(f"{root}: no text domain; expected sub-folders that hold a {name}")
    return [root / domain / name for domain in domains or found]


def documents(paths: Sequence[Path]) -> Iterator[Document]:
    """Every document, file by file: its domain is the file's folder, its id the row's or else its number.

    Errors: StudyError naming file and row where `text` is missing or not a string.
    """
    for path in paths:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                row = _row(line, f"{path}, row {number}")
                yield Document(path.parent.name, str(row.get("id", number)), row["text"])


def _row(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise StudyError(f"{place}: not a JSON object in UTF-8: {error}") from error
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str) or not text:
        raise StudyError(f"{place}: field 'text': found {text!r}, expected a text that is not empty")
    return row
