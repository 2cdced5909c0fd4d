"""The whole page: template, style, script and data in one file, with a Content-Security-Policy that allows nothing else.

Untrusted text (rows, names, labels, columns) reaches the page through the template alone, which escapes it and shows control
characters as symbols. Scripts are allowed by their hash; the page may send no request.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup

from workflow import registry
from workflow.indicators import measures
from workflow.report import pages
from workflow.report.page import audit_groups, cards, changed_rows, charts, data_tables, questions
from workflow.report.page.inputs import PageInputs
from workflow.study import indicators

FOLDER = Path(__file__).parent
PLAIN = "\n\t"  # control characters that stay
EMPTY = "sha256-" + base64.b64encode(hashlib.sha256(b"").digest()).decode()


def page(inputs: PageInputs, progress: str = "") -> str:
    """The page of a study as HTML. progress: a line on a study that is not finished; else empty."""
    style, script, table_script = (_asset(path) for path in ("style.css", "script.js", "../page.js"))
    plotly = importlib.resources.files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    # Plotly adds the style of maps, which the policy refuses, unless an element with its id is there already.
    maps = sorted(set(re.findall(r'getElementById\("([0-9a-f]{64})"\)', plotly)))
    scripts = [_inline(text) for text in (plotly, table_script, script)]
    shown, drawn = cards.cards(inputs), list(charts.charts(inputs))
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            policy=policy(scripts, [style]),
            style=Markup(style),  # a file of this package
            scripts=[Markup(text) for text in scripts],  # files of this package and of plotly
            maps=maps,
            progress=progress,
            lead=cards.lead(shown, inputs),
            study=study_line(inputs),
            cards=shown,
            questions=list(questions.questions(inputs, drawn)),
            charts=drawn,
            figures={chart.key: chart.figure for chart in drawn},
            browsers=list(changed_rows.browsers(inputs)),
            audit=list(audit_groups.audit_groups(inputs)),
            tables=list(data_tables.data_tables(inputs)),
            config=yaml.safe_dump(dict(inputs.settings), sort_keys=False, allow_unicode=True, width=100),
            level=inputs.level,
            indicators=list(_indicators(inputs)),
        )
    )


def _indicators(inputs: PageInputs) -> Iterator[tuple[str, str]]:
    """The study's indicators, each with what its measure is and the tests or the corpus that it reads."""
    for name, block in inputs.settings.get("indicators", {}).items():
        scored = block["measure"] == indicators.SCORED
        about = (
            "The mean score of the untouched base on tests"
            if scored
            else pages.title(registry.module(measures, block["measure"]))
        )
        reads = ", ".join(block.get("tests") or filter(None, [block.get("corpus"), block.get("train")]))
        yield name, f"{about} ({reads})." if reads else f"{about}."


def _asset(name: str) -> str:
    """A file beside this module."""
    return (FOLDER / name).read_text(encoding="utf-8")


def _inline(script: str) -> str:
    """A script that can stand in a page: nothing in it ends its element."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--").strip()


def digest(text: str) -> str:
    """The hash of an inline script or style as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """The Content-Security-Policy of the page: these scripts and styles, pictures inside the page, no request.

    Plotly makes an empty style element and fills it by script, hence the hash of no text, and sets style attributes.
    """
    allowed = " ".join(digest(text) for text in scripts)
    styled = " ".join([*(digest(text) for text in styles), f"'{EMPTY}'"])
    return (
        f"default-src 'none'; script-src {allowed}; style-src-elem {styled}; style-src-attr 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def environment() -> jinja2.Environment:
    """The template engine: escapes everything, stops at names that are missing."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"cell": cell, "number": number, "data": data}
    return made


def visible(value: Any) -> Any:
    """A value whose control and direction characters are shown as symbols; markup of the page stays."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def clean(text: str) -> str:
    """Text in which nothing is invisible: control, format and unpaired characters become symbols."""
    return "".join(_symbol(char) if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char for char in text)


def _symbol(char: str) -> str:
    """The symbol of a control character."""
    if char in PLAIN:
        return char
    code = ord(char)
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"


def cell(value: Any) -> str:
    """A value as the text of a cell: numbers rounded, missing values empty."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(cell(part) for part in value)
    if value is None or pd.isna(value):
        return ""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        return str(value)
    return number(float(value))


def number(value: float) -> str:
    """A number with four digits; whole numbers as they are."""
    return f"{int(value)}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def data(value: Any) -> Markup:
    """Data as JSON that can stand in a script element: text cleaned, no character that could end the element."""
    text = json.dumps(_cleaned(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(safe)  # escaped in the line above


def _cleaned(value: Any) -> Any:
    """Data whose texts show what is invisible."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(name)): _cleaned(part) for name, part in value.items()}
    return [_cleaned(part) for part in value] if isinstance(value, (list, tuple)) else value


def study_line(inputs: PageInputs) -> str:
    """The study in one line: families with steps, tasks, seeds."""
    scores = inputs.scores
    if scores.empty:
        return ""
    families = [
        f"{name} ({members['step'].nunique()} checkpoints)" for name, members in scores.groupby("family", sort=False)
    ]
    listed = ", ".join(families[:4]) + (f" and {len(families) - 4} more families" if len(families) > 4 else "")
    tuned = scores[scores["train"] != "none"]
    models = tuned[["family", "step", "train", "format", "recipe", "seed"]].drop_duplicates()
    tests = scores["test"].nunique()
    seeds = tuned["seed"].nunique()
    counted = f"{len(models)} fine-tuned models, {seeds} seed{'s' if seeds > 1 else ''}"
    made = counted if len(models) else "nothing fine-tuned"
    return f"{listed}; {made}; {tests} tests."
