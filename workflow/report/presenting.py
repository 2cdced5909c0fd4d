"""The pages of a study's report by chapter: figures, tables, findings and the config."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from workflow import registry
from workflow.report import figures, pages, summaries
from workflow.report.findings import FindingTables
from workflow.report.sections import title
from workflow.storage import checksums, tables

RESULTS = Path("results")


@dataclass(frozen=True)
class Page:
    """One page of the report. section: key of SECTIONS; name: its label, a file name; caption: in reStructuredText."""

    section: str
    name: str
    content: str
    caption: str

    @property
    def place(self) -> str:
        """Path below the folder of pages, without suffix."""
        return f"{title(self.section)}/{self.name}"


@dataclass(frozen=True)
class Study:
    """The study of a report. settings: the config, defaults filled in; paths: tables and summaries; figures: PNG files."""

    settings: Mapping[str, Any]
    paths: Sequence[Path]
    figures: Sequence[Path]

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by its path below `results/`, without suffix."""
        return read(self.paths)

    @property
    def material(self) -> FindingTables:
        """The tables that findings are made from."""
        return FindingTables(self.tables, self.settings["statistics"]["level"])


def read(paths: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Tables in Parquet or CSV by their path below `results/`, without suffix."""
    for path in paths:
        checksums.check(path)
    return {named(path): pd.read_csv(path) if path.suffix == ".csv" else tables.read(path) for path in paths}


def named(path: Path) -> str:
    """Name of a table."""
    return path.relative_to(RESULTS).with_suffix("").as_posix()


def made(study: Study) -> Iterator[Page]:
    """All pages of a study's report."""
    findings = study.tables["findings"]
    content = pages.findings_page(findings, study.tables, study.material.level)
    yield Page("answer", "Findings in words", content, "Findings from the tables, by fixed rules.\n")
    for path in study.figures:
        yield _figure(study, path, findings)
    for path in study.paths:
        yield _table(study, path)
    text = yaml.safe_dump(dict(study.settings), sort_keys=False, allow_unicode=True, width=100)
    config = pages.page("Configuration", f"<pre>{html.escape(text)}</pre>")
    yield Page("study", "Configuration", config, "The study's config, defaults filled in.\n")


def _figure(study: Study, path: Path, findings: pd.DataFrame) -> Page:
    """The page of a figure."""
    module = registry.module(figures, path.stem)
    caption = pages.caption(module, study.material, findings)
    content = pages.figure_page(caption, path.read_bytes(), path.with_suffix(".pdf").read_bytes(), path.stem)
    return Page(module.SECTION, f"Figure {path.stem}", content, caption.rst())


GATHERED = {"findings": "answer", "recommendations": "answer", "audit": "audit", "indicators": "base"}
FORECASTING = ("forecasts", "rankings", "importance")


def _table(study: Study, path: Path) -> Page:
    """The page of a table, in the chapter of its module."""
    name = named(path)
    section, about = GATHERED.get(name, "study"), ""
    if path.suffix == ".csv":
        section = "forecasts"  # tables without a module of summaries are about forecasters
        if path.stem in registry.modules(summaries):
            module = registry.module(summaries, path.stem)
            section, about = module.SECTION, f"{pages.title(module)}.\n\n"
    elif name in FORECASTING:
        section = "forecasts"
    rows = _readable(study.tables[name])
    descriptions = {} if path.suffix == ".csv" else pages.described(path)
    content = pages.table_page(f"Table {path.stem}", rows, str(path), descriptions)
    return Page(section, f"Table {path.stem}", content, f"{pages.plain(about)}{len(rows)} rows of ``{path}``.\n")


FIRST = ("check", "severity", "evidence", "section", "statement")


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table without empty columns, with the columns FIRST in front and lists replaced by their length."""
    lists = {
        name: table[name].map(len)
        for name in table.columns
        if len(table) and isinstance(table[name].iloc[0], (list, np.ndarray))
    }
    shown = table.assign(**lists).dropna(axis="columns", how="all")
    first = [name for name in FIRST if name in shown]
    return shown[[*first, *(name for name in shown if name not in first)]]


def write(pages: Sequence[Page], folder: Path) -> None:
    """Write pages below a folder, one HTML file each."""
    for page in pages:
        path = folder / f"{page.place}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page.content, encoding="utf-8")
