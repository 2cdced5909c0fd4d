"""The interactive figures as data for Plotly: small multiples with shared axes, error bars, and several x axes to choose from.

The script of the page lays the panels out by the width of the window and takes colours of text and grid from its style.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workflow.evaluation import metric_names
from workflow.report import selection
from workflow.report.page.inputs import PageInputs
from workflow.study import token_axis

# Each has a contrast of 3 to 1 or more to the light and the dark background of the page (WCAG 2.2, 1.4.11).
COLOURS = ("#0a7abf", "#d5600a", "#0b8f6a", "#b8579a", "#8a7a10", "#7a6ad8", "#c2455e", "#4f8a2d")
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "star")
BASE = "untouched"
PANELS = 24  # panels of a figure, at most
FLOPS_A_TOKEN = 6  # for each parameter, forward and backward (Kaplan et al. 2020, section 2.1)
ROWS = ["family", "train", "recipe", "test", "step"]


@dataclass(frozen=True)
class Chart:
    """A figure. key: its anchor; alt: what it shows, in words; figure: panels and traces for the script; columns, rows: its
    numbers as a table; beyond: panels that are left out."""

    key: str
    title: str
    alt: str
    figure: Mapping[str, Any]
    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    beyond: int


def charts(inputs: PageInputs) -> Iterator[Chart]:
    """All figures that the study has data for."""
    for make in (_home, _gain, _transfer, _losses, _forecasts):
        chart = make(inputs)
        if chart is not None:
            yield chart


def _home(inputs: PageInputs) -> Chart | None:
    """Scores along pre-training, of untouched and fine-tuned models, on the tests of the tasks tuned on."""
    rows = _performance(inputs)
    tuned = selection.related(rows, {"in_domain", "instructed"}) if len(rows) else rows
    shown = selection.with_bases(tuned, rows) if len(tuned) else rows
    title = "Scores along pre-training"
    alt = "Score against training step, one panel for each test; untouched checkpoints and the same ones after fine-tuning."
    return _curves(inputs, "home", title, alt, shown, _level_axis(inputs), baselines=True)


def _gain(inputs: PageInputs) -> Chart | None:
    """What fine-tuning changes on the test of its own task."""
    rows = _analysis(inputs, "tuning_difference", "difference_of_means")
    rows = selection.related(rows, {"in_domain", "instructed"}) if len(rows) else rows
    alt = "Difference of the fine-tuned and the untouched checkpoint on the test of the task tuned on, along pre-training."
    return _curves(inputs, "gain", "What fine-tuning adds on its own task", alt, rows, lambda test: "tuned − untouched")


def _transfer(inputs: PageInputs) -> Chart | None:
    """What fine-tuning changes on other tests: a panel for each task tuned on, a line for each test."""
    rows = _analysis(inputs, "tuning_difference", "difference_of_means")
    rows = selection.related(rows, {"out_of_domain", "cross_task", "benchmark"}) if len(rows) else rows
    alt = "Difference of the fine-tuned and the untouched checkpoint on other tests, one panel for each task tuned on."
    title = "What fine-tuning changes on other tests"
    return _curves(inputs, "transfer", title, alt, rows, lambda test: "tuned − untouched", panel="train", line="test")


def _performance(inputs: PageInputs) -> pd.DataFrame:
    return _analysis(inputs, "performance", "mean")


def _analysis(inputs: PageInputs, name: str, *estimators: str) -> pd.DataFrame:
    """Rows of one analysis in the main format and number of shots, with values."""
    return inputs.material.rows(name, *estimators) if "analysis" in inputs.tables else pd.DataFrame()


def _level_axis(inputs: PageInputs) -> Callable[[str], str]:
    """The name of the metric of a test."""
    first = inputs.scores.drop_duplicates("test").set_index("test")["metric"] if len(inputs.scores) else {}
    return lambda test: metric_names.label(first[test]) if test in first else "score"


def _curves(
    inputs: PageInputs,
    key: str,
    title: str,
    alt: str,
    rows: pd.DataFrame,
    axis: Callable[[str], str],
    panel: str = "test",
    line: str = "train",
    baselines: bool = False,
) -> Chart | None:
    """A figure of lines along pre-training. panel, line: columns that panels and lines are made by."""
    rows = rows[rows["step"].notna() & rows["value"].notna()].reset_index(drop=True) if len(rows) else rows
    if rows.empty:
        return None
    order = sorted(rows[panel].unique(), key=lambda name: (selection.kind_place(name), name))
    names = _line_names(rows, line)
    looks = _looks(dict.fromkeys(names[names != BASE]))
    traces = [
        trace
        for index, value in enumerate(order[:PANELS])
        for trace in _lines(inputs, rows[rows[panel] == value], names, looks, index)
    ]
    panels = [{"title": value, "y": axis(value)} for value in order[:PANELS]]
    if baselines:
        traces += [
            trace for index, value in enumerate(order[:PANELS]) for trace in _baselines(inputs, rows, value, index)
        ]
    columns = [panel, *(name for name in ROWS if name != panel), "value", "low", "high", "n"]
    numbers = rows.sort_values(["family", panel, line, "step"])[list(dict.fromkeys(columns))]
    figure = {"panels": panels, "traces": traces, "axes": _axes(traces), "shared": bool(_shared(panels, rows))}
    kept = list(numbers.head(400).itertuples(index=False, name=None))
    return Chart(key, title, alt, figure, list(numbers.columns), kept, max(0, len(order) - PANELS))


def _shared(panels: Sequence[Mapping[str, str]], rows: pd.DataFrame) -> bool:
    """Whether panels share the y axis: all values are shares or differences of shares."""
    return bool(rows["value"].between(-1, 1).all())


def _line_names(rows: pd.DataFrame, line: str) -> pd.Series:
    """The name of the line of each row: task tuned on or test, with family and recipe where there are several."""
    bare = rows[line].astype(str) if line == "test" else "tuned on " + rows[line].astype(str)
    names = bare.where(rows["train"] != "none", BASE)
    if (names == BASE).all() and rows["family"].nunique() > 1:
        return rows["family"].astype(str)
    tuned = rows[rows["train"] != "none"]
    if tuned["recipe"].nunique() > 1:
        names = names.where(rows["train"] == "none", names + ", " + rows["recipe"].astype(str))
    return names


def _looks(names: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Colour, dash and marker of each line."""
    looks = {BASE: {"colour": "ink", "dash": "solid", "symbol": "circle-open"}}
    for index, name in enumerate(names):
        round_, place_ = divmod(index, len(COLOURS))
        symbol = SYMBOLS[index % len(SYMBOLS)]
        looks[name] = {"colour": COLOURS[place_], "dash": DASHES[round_ % len(DASHES)], "symbol": symbol}
    return looks


def _lines(
    inputs: PageInputs, rows: pd.DataFrame, names: pd.Series, looks: Mapping[str, dict[str, str]], panel: int
) -> Iterator[dict[str, Any]]:
    """The lines of a panel: each family and name is one."""
    several = rows["family"].nunique() > 1
    name_of_row = names[rows.index]
    for number, ((family, _, name), line) in enumerate(rows.groupby(["family", "suite", name_of_row], sort=False)):
        line = line.sort_values("step")
        label = f"{name} ({family})" if several and name != family else name
        # Lines that coincide stay visible: later ones are thinner and their markers smaller.
        size = max(5, 11 - 2 * number)
        yield {"panel": panel, "name": label, "group": label, **looks[name], "size": size} | _points(
            inputs, family, line
        )


def _points(inputs: PageInputs, family: str, line: pd.DataFrame) -> dict[str, Any]:
    """The points of a line: places on each axis, values, ends of intervals, hover texts."""
    steps = [int(step) for step in line["step"]]
    tokens = [token_axis.at(inputs.tokens.get(family, {}), step) for step in steps]
    size = inputs.parameters.get(family)
    flops = [None if size is None or seen is None else FLOPS_A_TOKEN * size * seen for seen in tokens]
    return {
        "x": {"step": steps, "tokens": tokens, "FLOPs": flops},
        "y": _numbers(line["value"]),
        "low": _numbers(line["low"]),
        "high": _numbers(line["high"]),
        "n": [None if pd.isna(n) else int(n) for n in line["n"]],
    }


def _numbers(values: pd.Series) -> list[float | None]:
    """Rounded numbers; None for missing ones."""
    return [None if pd.isna(value) else round(float(value), 5) for value in values]


def _axes(traces: Sequence[Mapping[str, Any]]) -> list[str]:
    """The x axes that all points have a place on."""
    places = ("step", "tokens", "FLOPs")
    return [name for name in places if all(None not in trace["x"][name] for trace in traces if "x" in trace)]


def _baselines(inputs: PageInputs, rows: pd.DataFrame, test: str, panel: int) -> Iterator[dict[str, Any]]:
    """Chance and majority of a test as level lines."""
    first_row = rows[rows["test"] == test].iloc[0]
    values = selection.baseline_values(
        inputs.table("scores"), family=first_row["family"], suite=first_row["suite"], test=test
    )
    for (name, value), dash in zip(values.items(), ("dot", "dash"), strict=False):
        yield {"panel": panel, "name": name, "group": name, "colour": "muted", "dash": dash, "level": round(value, 5)}


def _losses(inputs: PageInputs) -> Chart | None:
    """Training loss of each fine-tuning, a panel for each task."""
    rows = inputs.table("histories")
    if rows.empty:
        return None
    order, steps = sorted(rows["train"].unique()), sorted(rows["step"].unique())
    looks = _looks(dict.fromkeys(f"step {step}" for step in steps))
    traces = []
    for panel, task in enumerate(order[:PANELS]):
        for (family, step, recipe, seed), line in rows[rows["train"] == task].groupby(
            ["family", "step", "recipe", "seed"]
        ):
            line = line.sort_values("update").iloc[:: max(1, len(line) // 60)]
            name = f"step {step}"
            label = f"{family} step {step}, {recipe}, seed {seed}"
            points = {"x": {"update": line["update"].astype(int).tolist()}, "y": _numbers(line["loss"])}
            traces.append({"panel": panel, "name": label, "group": name, **looks[name], "size": 0, **points})
    panels = [{"title": task, "y": "training loss"} for task in order[:PANELS]]
    figure = {"panels": panels, "traces": traces[:400], "axes": ["update"], "shared": True}
    alt = "Training loss against optimizer update, one panel for each task, one line for each fine-tuned checkpoint."
    last = (
        rows.sort_values("update").groupby(["family", "train", "step", "recipe", "seed"])["loss"].last().reset_index()
    )
    numbers = list(last.head(400).itertuples(index=False, name=None))
    return Chart("losses", "Training loss of fine-tuning", alt, figure, list(last.columns), numbers, 0)


def _forecasts(inputs: PageInputs) -> Chart | None:
    """Accuracy of forecasters, a panel for each target."""
    rows = inputs.table("forecasts")
    keep = {"split": "every_pair", "subset": "all", "ties": "half"}
    if rows.empty or not set(keep) <= set(rows.columns):
        return None
    rows = rows[(rows[list(keep)] == pd.Series(keep)).all(axis=1)].rename(columns={"accuracy": "value", "n_pairs": "n"})
    rows = rows[rows["value"].notna()]
    rows = rows[rows["source"].isna() | (rows["source"] == rows["target"])]
    if rows.empty:
        return None
    groups = list(rows.groupby(["cohort", "target"], sort=False))[:PANELS]
    traces = [
        _dots(panel, members.sort_values("value", ascending=False).head(12))
        for panel, (_, members) in enumerate(groups)
    ]
    panels = [{"title": f"{target} ({cohort})", "y": "pairs in the right order"} for (cohort, target), _ in groups]
    figure = {"panels": panels, "traces": traces, "axes": ["forecaster"], "shared": True}
    alt = "Share of pairs of bases that each forecaster orders correctly, with interval; a panel for each target; chance is 0.5."
    columns = [name for name in ("cohort", "target", "forecaster", "kind", "value", "low", "high", "n") if name in rows]
    numbers = list(rows[columns].head(400).itertuples(index=False, name=None))
    return Chart("forecasts", "How well indicators forecast the order of bases", alt, figure, columns, numbers, 0)


def _dots(panel: int, rows: pd.DataFrame) -> dict[str, Any]:
    """The forecasters of a target as dots with intervals."""
    points = {"x": {"forecaster": rows["forecaster"].astype(str).tolist()}, "y": _numbers(rows["value"])}
    points |= {name: _numbers(rows[name]) for name in ("low", "high")}
    name = {"name": "forecaster", "group": "forecaster", "colour": COLOURS[0], "dash": "solid", "symbol": "circle"}
    return {"panel": panel, **name, "size": 9, "dots": True, **points}
