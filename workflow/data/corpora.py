"""Text for pre-training and indicators: folders of domains with JSON Lines of documents, or text from the hub."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from workflow.errors import StudyError, shown
from workflow.storage.files import json_lines

GENERATED = "miniworld"
HUB = "hub:"  # prefix of the name of one of the study's `corpora`


class Document(NamedTuple):
    """A text with its domain and an id that is unique in the domain."""

    domain: str
    id: str
    text: str


def folder(block: Mapping[str, Any], data_root: str | None, key_path: str = "pretraining/corpus") -> Path:
    """The corpus folder of a family's `pretraining` or of an indicator: the generated text, or a path below `data_root`.
    key_path: key path, for messages.

    Errors: StudyError for a relative path without data_root, a path that leaves data_root, or a missing folder.
    """
    corpus = block["corpus"]
    if source := made(corpus):
        return Path(source) / "text" if corpus == GENERATED else Path(source)
    if not Path(corpus).is_absolute() and data_root is None:
        raise StudyError(
            f"config.yaml: {key_path}: {corpus!r} is relative to data_root, which is not set; "
            "set data_root, or pass --config data_root=FOLDER"
        )
    path = Path(data_root or ".") / corpus
    if ".." in Path(corpus).parts:
        raise StudyError(f"config.yaml: {key_path}: {corpus!r} points outside data_root; expected a folder inside it")
    if not path.is_dir():
        raise StudyError(f"{path}: no such folder; expected one sub-folder for each text domain ({key_path})")
    return path


def made(corpus: str) -> str | None:
    """The folder of a corpus that another job writes: the generated world, or text collected from the hub; None for the
    user's own.
    """
    if corpus == GENERATED:
        return "resources/miniworld"
    return f"resources/corpora/{corpus.removeprefix(HUB)}" if corpus.startswith(HUB) else None


def files(root: Path, domains: Sequence[str] | None, split: str = "train") -> list[Path]:
    """The files of a split, one for each domain, sorted. Without `domains`, all domains of the corpus that have the split.

    Errors: StudyError for a domain without `<split>.jsonl`, or if there is no domain at all.
    """
    name = f"{split}.jsonl"
    domains_found = sorted(path.parent.name for path in root.glob(f"*/{name}"))
    for domain in domains or []:
        if domain not in domains_found:
            raise StudyError(
                f"{root}: no text domain {domain!r} with a {name}; allowed: {', '.join(domains_found) or 'none'}"
            )
    if not domains_found:
        raise StudyError(f"{root}: no text domain; expected sub-folders that hold a {name}")
    return [root / domain / name for domain in domains or domains_found]


def documents(paths: Sequence[Path]) -> Iterator[Document]:
    """All documents, file by file. The domain is the file's folder, the id that of the row or else its number.

    Errors: StudyError naming file and row if `text` is missing or not a string.
    """
    for path in paths:
        for number, (row_name, row) in enumerate(json_lines(path), start=1):
            yield Document(path.parent.name, str(row.get("id", number)), _text(row.get("text"), "text", row_name))


def pin(name: str, block: Mapping[str, Any]) -> dict[str, Any]:
    """Pin a corpus on the hub (`hub.pin_dataset`). block: its entry in the study's `corpora`."""
    from workflow.storage import hub

    with hub.errors(f"corpus {name}: {block['repo']}"):
        return hub.pin_dataset(block["repo"], block.get("subset"), block.get("revision"), folders=False)


def collect(
    name: str, block: Mapping[str, Any], rows: Callable[[str], Iterable[Mapping[str, Any]]], out: Path
) -> dict[tuple[str, str], int]:
    """Write the rows of a corpus as `out/<domain>/<split>.jsonl`. Returns the number of documents of each domain and split.

    block: splits (name here -> split on the hub), text and domain (columns, or dotted names of nested fields; without a
    domain, one domain named like the corpus), documents (largest number of each split, from its beginning). rows: function
    that reads a split. Errors: StudyError naming the row if its text or domain is missing.
    """
    counts: dict[tuple[str, str], int] = {}
    for split, there in block["splits"].items():
        with contextlib.ExitStack() as opened:
            written: dict[str, TextIO] = {}
            for number, row in enumerate(itertools.islice(rows(there), block.get("documents")), start=1):
                row_name = f"corpus {name}: {block['repo']} {there}, row {number}"
                domain = _domain(_found(row, block["domain"], row_name)) if "domain" in block else name
                if domain not in written:
                    (out / domain).mkdir(parents=True, exist_ok=True)
                    path = out / domain / f"{split}.jsonl"
                    written[domain] = opened.enter_context(path.open("w", encoding="utf-8"))
                document = {
                    "id": f"{there}/{number}",
                    "text": _found(row, block["text"], row_name),
                    "source": block["repo"],
                }
                written[domain].write(json.dumps(document, ensure_ascii=False) + "\n")
                counts[domain, split] = counts.get((domain, split), 0) + 1
    return counts


def _found(row: Mapping[str, Any], column: str, row_name: str) -> str:
    """The text in a column or in a nested field."""
    value: Any = row
    for name in column.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return _text(value, column, row_name)


def _text(value: Any, column: str, row_name: str) -> str:
    """A value that is text.

    Errors: StudyError if it is not, is empty, or contains a lone surrogate.
    """
    if not isinstance(value, str) or not value:
        raise StudyError(f"{row_name}: field {column!r}: found {shown(value)}, expected a text that is not empty")
    if any("\ud800" <= sign <= "\udfff" for sign in value):
        raise StudyError(
            f"{row_name}: field {column!r}: found {shown(value)}, expected valid Unicode (no lone surrogate)"
        )
    return value


def _domain(label: str) -> str:
    """A label as the name of a folder and column."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "none-given"
