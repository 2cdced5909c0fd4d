"""Tables in Markdown."""

from __future__ import annotations

from typing import Any

import pandas as pd

INTERVAL = ["value", "low", "high"]


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown: scores to three decimals with their interval, other numbers to three digits, – for no value."""
    merged = {"low", "high"} if set(INTERVAL) <= set(table.columns) else set()
    columns = [name for name in table.columns if name not in merged]
    lines = [columns, ["---"] * len(columns)]
    for row in table.to_dict("records"):
        ends = f" [{row['low']:.3f}, {row['high']:.3f}]" if merged and not pd.isna(row["low"]) else ""
        lines.append(
            [_cell(row[name], ".3f") + ends if name == "value" else _cell(row[name], ".3g") for name in columns]
        )
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cell(value: Any, form: str) -> str:
    """The text of a cell.

    Text with a line break (shown as ⏎, since a cell has one line) or a space at an end is shown as code.
    """
    if pd.isna(value):
        return "–"
    if isinstance(value, float):
        return format(value, form)
    text = str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", "⏎")
    return f"`{text}`" if "⏎" in text or text != text.strip() else text
