"""Results are read elsewhere by the lines of the docs, and every column says what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import running

from workflow.report import pages
from workflow.storage import tables
from workflow.study import grid

KEYS = {*grid.CELL_KEYS, *grid.TEST_KEYS, "metric"}
PAGE = (running.ROOT / "docs/results.md").read_text(encoding="utf-8")


def lines() -> dict[str, str]:
    """The page's lines that read results: first word of the library -> line."""
    block = re.search(r"```python\n(import pandas.*?)```", PAGE, re.DOTALL)[1]
    return {
        name: line for line in block.splitlines() for name in ("pandas", "duckdb", "datasets") if f"{name}." in line
    }


@pytest.mark.parametrize("library", ["pandas", "duckdb", "datasets"])
def test_the_page_on_results_reads_all_scores(
    library: str, smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(smoke / "study")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    scope = {library: pytest.importorskip(library)}
    exec(f"found = {lines()[library]}", scope)
    found = scope["found"]
    rows = found if isinstance(found, pd.DataFrame) else found.df() if library == "duckdb" else found.to_pandas()
    expected = tables.read(smoke / "study/results/scores.parquet")
    assert set(rows.columns) >= KEYS
    order = sorted(KEYS)
    left, right = (
        table.astype({name: str for name in order}).sort_values(order)["value"].tolist() for table in (rows, expected)
    )
    assert left == right


def test_every_column_of_every_gathered_table_is_described(smoke: Path) -> None:
    gathered = sorted((smoke / "study/results").glob("*.parquet"))
    assert len(gathered) >= 6
    for path in gathered:
        assert [name for name, text in pages.described(path).items() if not text] == [], path.name


def test_every_part_describes_its_columns(smoke: Path) -> None:
    for folder in ("predictions", "items", "scores", "histories"):
        part = next((smoke / "study/results" / folder).rglob("part.parquet"))
        assert all(pages.described(part).values()), folder


def test_every_schema_describes_its_columns() -> None:
    schemas = {name: value for name, value in vars(tables).items() if isinstance(value, pa.Schema)}
    assert {"SCORES", "FINDINGS", "AUDIT"} <= set(schemas)
    for name, schema in schemas.items():
        assert [field.name for field in schema if not (field.metadata or {}).get(b"description")] == [], name
