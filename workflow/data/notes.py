"""Notes on the rows of a task when they are prepared: content that no prompt shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow import registry, task
from workflow.data import declared, prompts
from workflow.storage import hub


def of(
    name: str, rows: Sequence[Mapping[str, Any]], data_root: str | Path | None, pinned: hub.Pin | None
) -> Iterator[str]:
    """Lines about templates that leave out a field which every prepared row has, and about columns that are not used.

    rows: in the columns of `tables.EXAMPLES`; data_root, pinned: where they were read, as in `task.prepared`.
    """
    read = task.load(name)
    fields = [dict(row["fields"]) for row in rows]
    lacking: dict[str, list[str]] = {}
    for format in prompts.formats(read) if read.kind != "messages" else ():
        if left := prompts.left_out(read, format, fields):
            lacking.setdefault(", ".join(left), []).append(format)
    for names, formats in lacking.items():
        yield f"templates in format {', '.join(formats)} leave out what every row has: {names}"
    if name in registry.tasks.blocks and not read.lm_eval:
        yield from _unread(name, read, data_root, pinned)


def _unread(name: str, read: task.Task, data_root: str | Path | None, pinned: hub.Pin | None) -> Iterator[str]:
    """A line about columns with text that a declared task does not use."""
    split = task.splits(read)[0]
    root = task.row_root(name, None if data_root is None else str(data_root))
    rows = task.read_hub(pinned, split) if pinned else task.read_folder(root or task.GENERATED, read, name, split)
    if left := declared.unread(read, (row for _, row in rows)):
        yield f"columns of text that neither prompt nor answer reads: {', '.join(left)}"
