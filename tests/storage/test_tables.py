"""Tables: written whole or not at all, gathered with their keys, and what they say of themselves."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workflow.errors import StudyError
from workflow.storage import checksums, tables

KEYS = ["family", "step", "train", "format", "recipe", "seed", "suite"]
SCHEMAS = {
    name: value for name, value in vars(tables).items() if isinstance(value, pa.Schema) and not name.startswith("_")
}
SCORE = {"test": "mnli", "test_format": "io", "shots": 4, "metric": "accuracy", "value": 0.5, "low": 0.25, "high": 0.75}


def part(root: Path, step: int, suite: str = "s", seed: int = 0) -> Path:
    """Path of a part with all keys of a cell."""
    names = zip(KEYS, ["olmo", step, "mnli", "io", "full", seed, suite], strict=True)
    return root.joinpath(*(f"{name}={value}" for name, value in names), "part.parquet")


def test_a_part_comes_back_as_it_was_written(tmp_path: Path) -> None:
    row = {
        "id": "test/1", "split": "test", "fields": {"premise": "A cat.", "hypothesis": "日本語"},
        "choices": ["yes", "no"], "leads": [], "answer": "no", "gold": 1, "turns": [],
    }  # fmt: skip
    tables.write([row, row | {"id": "test/2", "gold": None}], tables.EXAMPLES, tmp_path / "new" / "part.parquet")
    found = tables.rows(tmp_path / "new" / "part.parquet")
    assert [dict(found[0], fields=dict(found[0]["fields"])), found[1]["gold"]] == [row, None]


def test_a_column_that_a_row_lacks_is_null(tmp_path: Path) -> None:
    tables.write([{"test": "mnli"}], tables.SCORES, tmp_path / "part.parquet")
    assert tables.rows(tmp_path / "part.parquet") == [dict.fromkeys(tables.SCORES.names) | {"test": "mnli"}]


def test_no_rows_make_an_empty_part(tmp_path: Path) -> None:
    tables.write([], tables.SCORES, tmp_path / "part.parquet")
    assert tables.rows(tmp_path / "part.parquet") == []


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(pa.ArrowInvalid):
        tables.write([SCORE | {"value": "high"}], tables.SCORES, tmp_path / "part.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_part_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    tables.write([SCORE], tables.SCORES, path)
    before = path.read_bytes()
    with pytest.raises(pa.ArrowInvalid):
        tables.write([SCORE | {"shots": "four"}], tables.SCORES, path)
    assert path.read_bytes() == before


def test_a_part_is_in_place_only_when_whole(tmp_path: Path) -> None:
    tables.write([SCORE], tables.SCORES, tmp_path / "part.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".part.parquet.sha256", "part.parquet"]
    # A folder in the way of the finished file: the write ends before it could be put there.
    (tmp_path / "blocked" / "inside").mkdir(parents=True)
    with pytest.raises(StudyError, match=r"blocked: cannot be written: Is a directory; fix it, then run again$"):
        tables.write([SCORE], tables.SCORES, tmp_path / "blocked")
    assert (tmp_path / "blocked" / "inside").is_dir()
    assert not list(tmp_path.glob(".*unfinished*")), "nothing unfinished is left"


def test_facts_travel_with_the_part(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    tables.write([SCORE], tables.SCORES, path, recipe={"epochs": 3}, family="größer")
    facts = tables.recorded(path)
    assert (facts["recipe"], facts["family"]) == ({"epochs": 3}, "größer")
    assert set(facts["versions"]) == set(tables.RECORDED_PACKAGES)
    assert facts["versions"]["pyarrow"] == version("pyarrow")


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_is_described_in_the_file(name: str, tmp_path: Path) -> None:
    tables.write([], SCHEMAS[name], tmp_path / "part.parquet")
    for field in pq.read_schema(tmp_path / "part.parquet"):
        assert field.metadata[b"description"], field.name


def test_the_schemas_are_found() -> None:
    assert set(SCHEMAS) == {
        "EXAMPLES", "HISTORY", "PREDICTIONS", "ITEMS", "KEYS", "SCORES", "IMPORTED", "ANALYSIS", "AUDIT", "TRIALS", "CHOICES",
        "FORGETTING",
        "PAIRS", "FORECASTS", "RANKINGS", "IMPORTANCE", "MEASURED", "INDICATORS", "FINDINGS", "RECOMMENDATIONS", "OTHER_KEYS",
        "RELEASED", "SELECTION",
    }  # fmt: skip


def test_gathered_rows_are_led_by_the_keys_of_their_part(tmp_path: Path) -> None:
    first, second = part(tmp_path, 1000), part(tmp_path, 20000, "wide", seed=3)
    tables.write([SCORE, SCORE | {"metric": "chance"}], tables.SCORES, first)
    tables.write([SCORE | {"n": 7}], tables.SCORES, second)
    table = tables.gather([first, second], KEYS, tables.SCORES)
    assert table.column_names == [*KEYS, *tables.SCORES.names]
    assert (table.schema.field("step").type, table.schema.field("seed").type) == (pa.int64(), pa.int64())
    assert (table.schema.field("family").type, table.schema.field("suite").type) == (pa.string(), pa.string())
    lead = ("olmo", 1000, "mnli", "io", "full", 0, "s")
    found = [tuple(row[name] for name in [*KEYS, "metric", "n"]) for row in table.to_pylist()]
    assert found == [
        (*lead, "accuracy", None),
        (*lead, "chance", None),
        ("olmo", 20000, "mnli", "io", "full", 3, "wide", "accuracy", 7),
    ]


def test_keys_come_from_the_part_s_own_folders_alone(tmp_path: Path) -> None:
    path = part(tmp_path / "family=other", 10)
    tables.write([SCORE], tables.SCORES, path)
    assert tables.gather([path], ["family"], tables.SCORES)["family"].to_pylist() == ["olmo"]


def test_no_parts_gather_to_an_empty_table_with_all_columns() -> None:
    table = tables.gather([], KEYS, tables.SCORES)
    assert (len(table), table.column_names) == (0, [*KEYS, *tables.SCORES.names])


def test_a_part_without_rows_adds_none(tmp_path: Path) -> None:
    tables.write([], tables.SCORES, part(tmp_path, 1))
    tables.write([SCORE], tables.SCORES, part(tmp_path, 2))
    assert tables.gather([part(tmp_path, 1), part(tmp_path, 2)], KEYS, tables.SCORES)["step"].to_pylist() == [2]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not a table"], ids=["empty", "cut", "other"])
def test_a_file_that_is_not_whole_is_named(content: bytes, tmp_path: Path) -> None:
    path = part(tmp_path, 5)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    for call in (tables.read, tables.rows, lambda path: tables.gather([path], KEYS, tables.SCORES)):
        with pytest.raises(StudyError) as caught:
            call(path)
        assert str(caught.value).startswith(f"{path}: not a complete Parquet file: ")
        assert str(caught.value).endswith("; delete it and run again")
        assert "\n" not in str(caught.value)


def test_a_part_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    tables.write([SCORE] * 100, tables.SCORES, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StudyError, match="does not match its checksum"):
        tables.rows(path)
    checksums.place(path).unlink()
    with pytest.raises(StudyError, match="not a complete Parquet file"):
        tables.rows(path)


def test_a_null_step_stays_null_beside_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    tables.write([{"step": 2**53 + 1}, {"step": None}], tables.ANALYSIS, path)
    column = tables.read(path)["step"]
    assert column.dtype == pd.Int64Dtype()
    assert column[0] == 2**53 + 1  # a float could not hold it
    assert column.isna().tolist() == [False, True]


def test_reading_takes_no_column_from_the_path(tmp_path: Path) -> None:
    path = part(tmp_path, 5)
    tables.write([SCORE], tables.SCORES, path)
    assert list(tables.read(path).columns) == tables.SCORES.names
