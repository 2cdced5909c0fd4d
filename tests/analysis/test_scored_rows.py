"""Rows of items as runs: from a frame or from a file in pieces, in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from workflow.analysis import scored_rows
from workflow.analysis.evidence import Evidence
from workflow.storage import tables

KEYS = {"family": "f", "train": "none", "format": "none", "recipe": "none", "seed": 0, "suite": "s", "test": "mnli"}
SCHEMA = pa.schema([*tables.KEYS, *tables.ITEMS])
NO_SCORES = pd.DataFrame(columns=[*tables.KEYS.names, *tables.SCORES.names])


def rows(steps: int = 3, names: int = 5) -> pd.DataFrame:
    """Accuracy and chance of some steps; accuracy of row i at step s is s + i / 100."""
    return pd.DataFrame(
        [
            {**KEYS, "step": step, "test_format": "io", "shots": 0, "metric": metric, "id": f"t/{i}", "value": value}
            for step in range(steps)
            for metric, add in (("accuracy", 0.0), ("chance", 0.5))
            for i in range(names)
            for value in [step + i / 100 + add]
        ]
    )  # fmt: skip


def written(frame: pd.DataFrame, path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> Path:
    """A file in pieces of so many rows, which end within runs."""
    monkeypatch.setattr(tables, "PIECE", piece)
    table = pa.Table.from_pandas(frame[SCHEMA.names], schema=SCHEMA, preserve_index=False)
    parts = (table.slice(start, piece) for start in range(0, len(table), piece))
    assert tables.save_pieces(parts, SCHEMA, path) == len(frame)
    return path


def test_runs_hold_every_row_once_and_in_order() -> None:
    found = list(scored_rows.runs(rows(), lambda keys: keys["metric"] == "accuracy"))
    assert [run.keys["step"] for run in found] == [0, 1, 2]
    assert [run.ids for run in found] == [tuple(f"t/{i}" for i in range(5))] * 3
    assert found[2].values.tolist() == [2.0, 2.01, 2.02, 2.03, 2.04]
    assert scored_rows.primary(rows()) == {("f", "s", "mnli", "accuracy")}


@pytest.mark.parametrize("piece", [3, 7, 1000])
def test_levels_of_a_file_in_pieces_are_those_of_its_rows_in_any_order(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(rows(), tmp_path / "items.parquet", monkeypatch, piece)
    shuffled = rows().sample(frac=1, random_state=1)
    one, other, plain = (Evidence(own, NO_SCORES) for own in (path, shuffled, rows()))
    for evidence in (one, other):
        assert [level.keys for level in evidence.levels] == [level.keys for level in plain.levels]
        for level, expected in zip(evidence.levels, plain.levels, strict=True):
            assert level.ids == expected.ids and np.array_equal(level.values, expected.values)
    chance = {("f", "mnli"): pytest.approx(np.mean([s + i / 100 + 0.5 for s in range(3) for i in range(5)]))}
    assert one.chances(["family", "test"]) == other.chances(["family", "test"]) == chance
    assert pd.read_parquet(path).equals(tables.read(path).astype(pd.read_parquet(path).dtypes))


def test_a_row_that_is_scored_twice_or_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="twice on one row"):
        _ = Evidence(pd.concat([rows(), rows().head(1)]), NO_SCORES).levels
    with pytest.raises(ValueError, match="different rows"):
        _ = Evidence(rows().replace({"value": {1.02: np.nan}}), NO_SCORES).levels


def test_an_empty_table_has_no_runs(tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    tables.save_pieces([], SCHEMA, path)
    assert list(scored_rows.runs(path, lambda keys: True)) == [] and Evidence(path, NO_SCORES).levels == []
