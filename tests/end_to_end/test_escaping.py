"""Names that others chose are shown as one line of text, which a terminal prints and does not obey."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import pandas as pd
import pytest

from workflow import task
from workflow.audit import inputs
from workflow.errors import StudyError, escaped, first_line, shown, told
from workflow.models import checkpoints
from workflow.storage import hub

CLEAR = "\x1b[2J"
HOSTILE = {
    f"a{CLEAR}b": "a\\x1b[2Jb",
    "two\nlines": "two\\nlines",
    "back\rward": "back\\rward",
    "next\x85line": "next\\x85line",
    "line\u2028separator": "line\\u2028separator",
    "right\u202eleft": "right\\u202eleft",
    "\x07bell": "\\x07bell",
    "not \udcff UTF-8": "not \\udcff UTF-8",
    "ünï 日本 😀 \\n '\"": "ünï 日本 😀 \\n '\"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_escaped_as_python_does_and_only_where_it_must_be(name: str) -> None:
    assert escaped(name) == HOSTILE[name]
    assert str(StudyError(f"{name}: missing")) == f"{HOSTILE[name]}: missing"
    assert told(OSError(errno.ENOENT, "No such file", name)).startswith(f"{HOSTILE[name]}: No such file; expected")
    assert escaped(escaped(name)) == escaped(name)  # a message within a message is not escaped again


@pytest.mark.parametrize("name", HOSTILE)
def test_a_quoted_value_and_the_line_of_a_library_s_error_are_one_line(name: str) -> None:
    for text in (shown(name), first_line(ValueError(name))):
        assert text.isprintable() and text


def test_what_a_checkpoint_calls_its_files_and_tensors_is_escaped(tmp_path: Path) -> None:
    folder = tmp_path / f"step{CLEAR}"
    folder.mkdir()
    (folder / f"ready{CLEAR}\n.bin").write_bytes(b"")
    with pytest.raises(StudyError) as caught:
        checkpoints.check(folder)
    assert str(caught.value).isprintable() and "ready\\x1b[2J\\n.bin" in str(caught.value)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": f"x\n{CLEAR}.safetensors"}}))
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(StudyError) as caught:
        checkpoints.check(folder)
    assert str(caught.value).isprintable() and "names x\\n\\x1b[2J.safetensors" in str(caught.value)


def test_what_a_row_is_called_is_escaped() -> None:
    read = task.load("arc_easy")
    row = {"id": f"q{CLEAR}", "question": "?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}
    with pytest.raises(StudyError) as caught:
        list(task.canonical(read, "train", [(f"file{CLEAR}, row 1", row), ("row\n2", row)]))
    assert str(caught.value).isprintable() and "\\x1b[2J" in str(caught.value)


def test_evidence_of_the_audit_is_one_line() -> None:
    found = inputs.finding("note", pd.DataFrame({"test": ["rte"]}), f"rows {CLEAR}\nand others")
    assert found["evidence"] == "rows \\x1b[2J\\nand others"


def test_what_prefetch_tells_of_a_branch_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines: list[str] = []
    monkeypatch.setattr(hub, "fetched", lambda pinned: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub.prefetch(
        [{"repo": "a/b", "kind": "model", "revision": f"main{CLEAR}\n", "commit": "0" * 40, "files": {}}], lines.append
    )
    assert lines[1] == f"model a/b at main\\x1b[2J\\n ({'0' * 40}): complete"


def test_a_log_keeps_its_lines_and_escapes_the_rest() -> None:
    from workflow.jobs.job import Printable

    record = logging.LogRecord("x", logging.WARNING, "", 0, f"tensor {CLEAR}\nnext", None, None)
    assert Printable("%(message)s").format(record) == "tensor \\x1b[2J\nnext"


def test_a_file_name_that_is_no_utf_8_can_be_told(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\n"
    try:
        open(name)  # noqa: SIM115
    except OSError as error:
        assert "/\\udcff\\n: No such file or directory; expected a file or folder" in told(error)
