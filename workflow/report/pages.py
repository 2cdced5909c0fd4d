"""Pages of a study's report: figures with captions, sortable tables, findings in words.

Each page is one self-contained HTML file, with style, script and pictures.
"""

from __future__ import annotations

import base64
import html
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from workflow.report.findings import FindingTables
from workflow.report.sections import SECTIONS
from workflow.storage import tables

ASSETS = Path(__file__).parent
ROWS = 3000  # of a table on a page, at most
# Bytes of a table in a page: Snakemake's report embeds a page in base64, and Chromium shows at most 2 MB of it.
LARGEST = 1_400_000
SHOWN_WIDTH = 0.75  # of the pixels of a figure: 150 to an inch of print
WORD = 40  # characters of a cell that is not broken into lines
QUOTED = 6  # findings in a caption
MARK = re.compile(r"[^\w\s]|_")


@dataclass(frozen=True)
class Caption:
    """The caption of a figure. title, shows, cells, interval: one paragraph each; conclusions: findings."""

    title: str
    shows: str
    cells: str
    interval: str
    conclusions: Sequence[Mapping[str, Any]]

    @property
    def parts(self) -> dict[str, str]:
        """Its paragraphs by their heading."""
        return {"Shows": self.shows, "Data": self.cells, "Intervals": self.interval}

    @property
    def quoted(self) -> list[str]:
        """The first QUOTED findings, and the number of the others."""
        statements = [row["statement"] for row in self.conclusions[:QUOTED]]
        beyond = len(self.conclusions) - QUOTED
        return [*statements, f"{beyond} more on the page of findings."] if beyond > 0 else statements

    def rst(self) -> str:
        """As reStructuredText."""
        lines = [f"**{plain(self.title)}**", *(f"*{name}*: {plain(text)}" for name, text in self.parts.items())]
        return "\n\n".join([*lines, *(f"- {plain(text)}" for text in self.quoted)]) + "\n"

    def html(self) -> str:
        """As HTML."""
        items = {name: html.escape(text) for name, text in self.parts.items()}
        if self.quoted:
            items["Findings"] = f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in self.quoted)}</ul>"
        return "<dl>" + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in items.items()) + "</dl>"


def plain(text: str) -> str:
    """Text as one line without markup in reStructuredText and Jinja, which Snakemake reads captions as.

    Every mark is escaped: names in foreign tables could otherwise start a directive or an expression, which would be run.
    """
    return MARK.sub(r"\\\g<0>", " ".join(text.split()))


def title(module: ModuleType) -> str:
    """The title of a module: the first sentence of its docstring without the citation."""
    return paragraph(module).split(" (arXiv")[0].rstrip(".")


def paragraph(thing: Any) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def caption(module: ModuleType, material: FindingTables, findings: pd.DataFrame) -> Caption:
    """The caption of a figure's module, filled from the tables."""
    concluding = findings[findings["finding"].isin(module.CONCLUSIONS)]
    concluding = concluding[
        (concluding["section"] == module.SECTION) | ~concluding["section"].isin([module.SECTION]).any()
    ]
    interval = f"{material.level:.0%}, {module.INTERVAL}."
    return Caption(title(module), paragraph(module.draw), cells(material), interval, concluding.to_dict("records"))


def cells(material: FindingTables) -> str:
    """The data of a study's figures: families with their steps, suites with main format and shots, rows of tests."""
    rows = material.analysis[material.analysis["analysis"] == "performance"]
    families = [
        f"{name} ({members['step'].nunique()} steps, {members['step'].min()} to {members['step'].max()})"
        for name, members in rows.groupby("family")
    ]
    ways = [
        f"{row.suite} of {row.family} (format {row.test_format}, {row.shots}-shot)"
        for row in material.ways.itertuples()
    ]
    counts = rows["n"].dropna()
    of = f" Tests have {counts.min()} to {counts.max()} rows." if len(counts) else ""
    return f"families {'; '.join(families)}. Each suite in its main format: {'; '.join(ways)}.{of}"


def page(heading: str, body: str, wide: bool = False) -> str:
    """A whole page. heading: text; body: HTML."""
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(heading)}</title><style>{style}</style></head>"
        f"<body{' class=wide' if wide else ''}><h1>{html.escape(heading)}</h1>\n{body}\n<script>{script}</script></body></html>\n"
    )


def figure_page(caption: Caption, picture: bytes, pdf: bytes, name: str) -> str:
    """The page of a figure: the picture, its caption, and the PDF to save."""
    shown, saved = (base64.b64encode(data).decode() for data in (picture, pdf))
    link = f'<a download="{name}.pdf" href="data:application/pdf;base64,{saved}">{name}.pdf</a>'
    width = round(int.from_bytes(picture[16:20]) * SHOWN_WIDTH)  # the width of a PNG follows its signature
    image = f'<img alt="{html.escape(caption.title)}" width="{width}" src="data:image/png;base64,{shown}">'
    return page(
        caption.title, f'<figure>{image}<figcaption>{caption.html()}</figcaption></figure><p class="note">{link}</p>'
    )


def table_page(heading: str, table: pd.DataFrame, source: str, descriptions: Mapping[str, str]) -> str:
    """The page of a table that sorts and can be searched. source: its path; descriptions: of columns."""
    count, shown = _fitting(table, descriptions)
    beyond = "" if count == len(table) else f" The first {count} of {len(table)} rows are shown."
    note = f'<p class="note">{len(table)} rows of <code>{html.escape(source)}</code>.{beyond} Click a column name to sort.</p>'
    search = '<input type="search" placeholder="show rows with these words" aria-label="search">'
    return page(heading, f'{note}<div class="filtered">{search}<div class="scroll">{shown}</div></div>', wide=True)


def _fitting(table: pd.DataFrame, descriptions: Mapping[str, str]) -> tuple[int, str]:
    """The first rows of a table that fit on a page: their number, and the table in HTML."""
    count = min(len(table), ROWS)
    while (size := len((shown := html_table(table.head(count), descriptions)).encode())) > LARGEST:
        count = int(0.95 * count * LARGEST / size)
    return count, shown


def html_table(table: pd.DataFrame, descriptions: Mapping[str, str] | None = None) -> str:
    """A sortable table in HTML; sorting uses the full numbers."""
    titles = descriptions or {}
    heads = "".join(
        f'<th scope="col" title="{html.escape(titles.get(name, ""))}"><button>{html.escape(str(name))}</button></th>'
        for name in table.columns
    )
    rows = "".join(
        f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in table.itertuples(index=False, name=None)
    )
    return f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _cell(value: Any) -> str:
    """One cell: numbers rounded to four digits, lists with one entry per line, empty for missing values."""
    if isinstance(value, (list, np.ndarray)):
        return f"<td>{'<br>'.join(html.escape(str(entry)) for entry in value)}</td>"
    if value is None or pd.isna(value):
        return "<td></td>"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        text = str(value)
        return f"<td class={'word' if len(text) <= WORD else 'text'}>{html.escape(text)}</td>"
    number = float(value)
    shown = f"{int(number)}" if number.is_integer() and abs(number) < 1e15 else f"{number:.4g}"
    return f'<td class="number" data-value="{number:.17g}">{shown}</td>'


def findings_page(findings: pd.DataFrame, sources: Mapping[str, pd.DataFrame], level: float) -> str:
    """All findings by section, each with the rows behind it and the audit's warnings.

    sources: the tables that findings are about, by name.
    """
    intro = (
        f"Each statement follows from the tables by a fixed rule. CI stands for {100 * level:g} % confidence intervals. "
        "'Significant' means: after Holm correction over all statements of the same kind. Detectable change: the smallest "
        "change that the study would find significant with the stated power. Warnings beside a statement come from the audit: "
        "those of both sides of a difference, and of all parts of a mean."
    )
    body = [f'<p class="note">{intro}</p>', _errors(sources.get("audit"))]
    for section, name in SECTIONS.items():
        of_section = findings[findings["section"] == section]
        if len(of_section):
            items = "".join(_statement(row, sources) for row in of_section.to_dict("records"))
            body.append(f'<h2>{name}</h2><ul class="statements">{items}</ul>')
    return page("Findings in words", "".join(body))


def _errors(audit: pd.DataFrame | None) -> str:
    """The audit's errors, shown before the findings."""
    rows = [] if audit is None else audit.loc[audit["severity"] == "error", "evidence"].tolist()
    items = "".join(f"<li>{html.escape(text)}</li>" for text in rows)
    return f'<div class="box">Errors found by the audit:<ul>{items}</ul></div>' if rows else ""


def _statement(row: Mapping[str, Any], sources: Mapping[str, pd.DataFrame]) -> str:
    """One finding, with its rows and warnings folded."""
    parts = [html.escape(row["statement"])]
    if len(row["warnings"]):
        items = "".join(f"<li>{html.escape(text)}</li>" for text in row["warnings"])
        parts.append(
            f'<details class="against"><summary>⚠ warnings: {len(row["warnings"])}</summary><ul>{items}</ul></details>'
        )
    behind = rows_behind(row, sources)
    table, rows = html.escape(row["table"]), html.escape(row["filter"])
    where = f'<p class="note"><code>results/{table}</code> where <code>{rows}</code></p>'
    parts.append(f"<details><summary>rows</summary>{where}{'' if behind is None else html_table(behind)}</details>")
    return f"<li>{' '.join(parts)}</li>"


def rows_behind(row: Mapping[str, Any], sources: Mapping[str, pd.DataFrame]) -> pd.DataFrame | None:
    """The rows behind a finding; None for a table or a filter that is not available."""
    table = sources.get(row["table"])
    if table is None:
        return None
    try:
        conditions = json.loads(row["filter"])
    except json.JSONDecodeError:
        return None
    rows = tables.matching(table, {key: value for key, value in conditions.items() if key != "estimator"})
    return rows.dropna(axis="columns", how="all").head(QUOTED * QUOTED)


def captions(blocks: Iterable[tuple[str, str]]) -> str:
    """All captions in one file as `report/caption.rst` reads it. blocks: path of a page below the pages' folder, caption."""
    return "\f".join(f"{name}\n\n{text}" for name, text in blocks)


def described(path: Path) -> dict[str, str]:
    """Descriptions of the columns of a Parquet file, from its schema."""
    fields = pq.read_schema(path)
    return {field.name: (field.metadata or {}).get(b"description", b"").decode() for field in fields}
