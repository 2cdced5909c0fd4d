"""Tables and rows from files that others wrote: read as the formats allow, else refused in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from workflow import task
from workflow.data import corpora
from workflow.errors import StudyError
from workflow.forecasting import cohorts, published_numbers
from workflow.storage import hub
from workflow.storage.files import csv_rows, json_lines, number
from workflow.study import families

# --- CSV -----------------------------------------------------------------------------------------------------------------

COHORT = {"key": "id", "fields": ["seed"], "indicators": [], "targets": []}
READERS: dict[str, Callable[[Path], object]] = {
    "any": csv_rows,
    "cohort": lambda path: cohorts.read({**COHORT, "path": path.name}),
    "printed numbers": lambda path: published_numbers.read(Path(path.name)),
    "families": lambda path: families.expanded({"families": {"v": {"source": "trained", "table": path.name}}}),
}
UNREADABLE = {
    "Latin-1": ("id,seed\ncafé,1\n".encode("latin-1"), "not CSV in UTF-8: 'utf-8' codec can't decode byte 0xe9"),
    "UTF-16": ("id,seed\na,1\n".encode("utf-16"), "not CSV in UTF-8: 'utf-8' codec can't decode byte 0xff"),
    "UTF-16 without a mark": ("id,é\nā,1\n".encode("utf-16-le"), "not CSV in UTF-8: "),
    "empty": (b"", "is empty; expected CSV with a header"),
    "blank lines": (b"\r\n\n", "is empty; expected CSV with a header"),
    "a byte-order mark alone": (b"\xef\xbb\xbf", "is empty; expected CSV with a header"),
    "a huge cell": (b"id,seed\n" + b"a" * 200_000 + b",1\n", "not CSV in UTF-8: field larger than field limit (131072)"),
    "a quote without end": (b'id,seed\n"a,1\n', "not CSV in UTF-8: unexpected end of data"),
    "a column twice": (b"id,seed,seed\na,1,2\n", "column 'seed' appears twice; expected each name once"),
    "a cell too many": (b"id,seed\na,1\nb,2,3\n", "row 2: found 3 cells, expected 2 as in the header"),
    "a cell too few": (b"id,seed\na\n", "row 1: found 1 cells, expected 2 as in the header"),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_table_that_cannot_be_read_is_one_line(
    kind: str, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, line = UNREADABLE[kind]
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_bytes(content)
    with pytest.raises(StudyError) as caught:
        READERS[reader](Path("table.csv"))
    assert str(caught.value).startswith("table.csv") and line in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("content", [b"id,seed\na,1\n", b"\xef\xbb\xbfid,seed\r\na,1\r\n\r\n", b'"id",seed\n\n"a",1'])
def test_tables_as_spreadsheets_write_them_are_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    assert csv_rows(tmp_path / "table.csv") == (["id", "seed"], [{"id": "a", "seed": "1"}])


def test_a_cell_may_hold_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text('id,text\n1,"a, ""b""\nc"\n')
    assert csv_rows(tmp_path / "table.csv")[1] == [{"id": "1", "text": 'a, "b"\nc'}]


@pytest.mark.parametrize("text", ["0", "-1.5", "+.5", "5.", "1e-3", " 7 ", "1E+2"])
def test_numbers_of_tables(text: str) -> None:
    assert number(text) == float(text)


@pytest.mark.parametrize("text", ["", "1_000", "1,5", "nan", "inf", "1e999", "0x10", "\u0661", "1 000", "."])
def test_other_texts_are_no_numbers(text: str) -> None:
    assert math.isnan(number(text))


# --- JSON Lines ----------------------------------------------------------------------------------------------------------

ONE, TWO = b'{"a": 1}', '{"a": "\u2028 é"}'.encode()


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n", b"\n \t\n", b"\r\n\r\n"])
def test_blank_lines_are_no_rows_and_numbers_are_those_of_lines(end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n" + ONE + b"\n\n" + TWO + end)
    assert list(json_lines(path)) == [(f"{path}, row 2", {"a": 1}), (f"{path}, row 4", {"a": "\u2028 é"})]


QUESTION = {"question": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}


def test_a_task_and_a_corpus_pass_over_blank_lines(tmp_path: Path) -> None:
    lines = "\n\n".join(json.dumps({"id": name, "text": name} | QUESTION) for name in "ab") + "\n\n"
    for name in ("train", "validation"):
        (tmp_path / "arc_easy").mkdir(exist_ok=True)
        (tmp_path / "arc_easy" / f"{name}.jsonl").write_text(lines)
    rows = list(task.prepared("arc_easy", str(tmp_path)))
    assert [row["id"] for row in rows] == ["train/a", "train/b", "validation/a", "validation/b"]
    found = corpora.documents([tmp_path / "arc_easy" / "train.jsonl"])
    assert [(document.id, document.text) for document in found] == [("a", "a"), ("b", "b")]


def test_half_a_character_in_a_corpus_is_named(tmp_path: Path) -> None:
    path = tmp_path / "books" / "train.jsonl"
    path.parent.mkdir()
    path.write_text('{"text": "a\\ud83d"}\n')
    with pytest.raises(StudyError) as caught:
        list(corpora.documents([path]))
    assert (
        str(caught.value)
        == f"{path}, row 1: field 'text': found 'a\\ud83d', expected valid Unicode (no lone surrogate)"
    )


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        *[("5", "yes"), ("5.0", "yes"), ("0", "no"), ("4.2e0", "yes")],
        *[(text, None) for text in ("NaN", "Infinity", "true", '"5"', "1e999", "1" + "0" * 400)],
    ],
)
def test_a_whole_number_is_a_number_and_what_is_none_is_refused(value: str, answer: str | None, tmp_path: Path) -> None:
    """STS-B: a similarity of 5, of at most 5, is a paraphrase; 0 is none."""
    row = f'{{"sentence1": "p", "sentence2": "h", "idx": 0, "label": {value}}}\n'
    for split in task.splits(task.load("stsb")):
        path = task.split_files(tmp_path, task.load("stsb"), "stsb", split)[0]
        path.parent.mkdir(exist_ok=True)
        path.write_text(row)
    if answer is None:
        with pytest.raises(StudyError, match="row 1: field 'label': found "):
            list(task.prepared("stsb", str(tmp_path)))
    else:
        assert {found["answer"] for found in task.prepared("stsb", str(tmp_path))} == {answer}


@pytest.mark.parametrize("value", ["1.0", "1e0", "true"])
def test_a_class_is_a_whole_number(value: str, tmp_path: Path) -> None:
    (tmp_path / "rte").mkdir()
    (tmp_path / "rte" / "train.jsonl").write_text(
        f'{{"sentence1": "p", "sentence2": "h", "idx": 0, "label": {value}}}\n'
    )
    with pytest.raises(StudyError, match=r"row 1: field 'label': found (1\.0|True), expected a value of type int"):
        list(task.prepared("rte", str(tmp_path)))


# --- CSV of the hub ------------------------------------------------------------------------------------------------------


def test_words_that_pandas_takes_for_blanks_stay_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may be None, NA, null or nan; a cell without anything is blank."""
    words = ["None", "NA", "N/A", "null", "nan", "", "yes"]
    (tmp_path / "x.csv").write_text("answer,n\n" + "".join(f"{word},{n}\n" for n, word in enumerate(words)))
    monkeypatch.setattr(hub, "fetched", lambda pinned: (tmp_path, {}))
    pinned = {"repo": "a/b", "splits": {"train": ["x.csv"]}, "features": None, "loader": "csv", "options": {}}
    rows = list(hub.rows(pinned, "train"))
    assert [row["answer"] for row in rows] == [word or None for word in words]
    assert [row["n"] for row in rows] == list(range(7))
