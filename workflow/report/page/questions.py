"""The findings by question: each question with one sentence that sums them up, and the findings folded below it."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workflow import registry
from workflow.analysis import analyses
from workflow.analysis.recommendation import CHANCE, LAST
from workflow.report import pages, selection
from workflow.report.page.cards import conditions
from workflow.report.page.charts import Chart
from workflow.report.page.inputs import PageInputs
from workflow.storage import tables

QUESTIONS = {
    "answer": "Which checkpoint, and which indicator finds it?",
    "base": "What does pre-training teach?",
    "tuned": "What does fine-tuning teach?",
    "transfer": "What is forgotten, and what transfers?",
    "formats": "Does the prompt format matter?",
    "forecasts": "Can the outcome be forecast before fine-tuning?",
    "cost": "What did it cost?",
}
# The figure that shows what a kind of finding speaks of, by its key in `charts`.
FIGURES = {
    **dict.fromkeys(("recommendations", "learning", "turning_points", "signal_to_noise", "extrapolation"), "home"),
    **dict.fromkeys(("declines", "conclusions"), "home"),
    **dict.fromkeys(("gains", "groups", "contrasts"), "gain"),
    **dict.fromkeys(("transfer", "domains", "ratios"), "transfer"),
    "forecasts": "forecasts",
}
SHOWN = 60  # findings of a question on the page; the table of findings has all
BEHIND = 8  # rows behind a finding
NOT = "not significant"
DEFINITIONS = {
    "scores": "Scores with intervals over test rows; the probability to be the best is that of the true score given all scores, "
    "drawn towards their mean (workflow/analysis/best_base.py).",
    "forecasts": "Share of pairs of bases that a forecaster orders correctly (workflow/forecasting/forecast_accuracy.py).",
    "rankings": "The length of the shortlist that holds the best base (workflow/forecasting/ranking.py).",
    "audit": "Checks of the results for known flaws (workflow/audit/checks).",
    "tables/gpu_hours": "Wall time of the measured jobs times the GPUs that each holds.",
}


@dataclass(frozen=True)
class Finding:
    """A finding with its evidence. rows: the first rows behind it, as columns and cells; count: of all of them; figure: the one
    that shows it, None without one; panel: its panel there, empty where the finding is about several."""

    statement: str
    warnings: list[str]
    source: str
    definition: str
    figure: Chart | None
    panel: str
    columns: list[str]
    rows: list[tuple[Any, ...]]
    count: int


@dataclass(frozen=True)
class Question:
    """A question with its summary and findings; beyond: the number of findings that are not shown."""

    key: str
    title: str
    summary: str
    findings: list[Finding]
    beyond: int


def questions(inputs: PageInputs, charts: Sequence[Chart] = ()) -> Iterator[Question]:
    """The questions that the study has findings on. charts: the figures of the page, which findings link to."""
    drawn = {chart.key: chart for chart in charts}
    findings = inputs.table("findings")
    for key, title in QUESTIONS.items():
        rows = findings[findings["section"] == key] if len(findings) else findings
        if len(rows):
            shown = [_finding(row, inputs, drawn) for row in rows.head(SHOWN).to_dict("records")]
            yield Question(key, title, summary(key, rows, inputs), shown, max(0, len(rows) - SHOWN))


def summary(section: str, rows: pd.DataFrame, inputs: PageInputs) -> str:
    """One sentence on all findings of a section."""
    summarise = SUMMARIES.get(section)
    return (summarise(rows, inputs) if summarise else None) or _counted(rows)


def _counted(rows: pd.DataFrame) -> str:
    """The number of findings, and of the significant ones among them."""
    tested = rows["statement"].str.contains("significant")
    sure = tested & ~rows["statement"].str.contains(NOT)
    noun = "finding" if len(rows) == 1 else "findings"
    return (
        f"{len(rows)} {noun}, {int(sure.sum())} of them significant (Holm)." if tested.any() else f"{len(rows)} {noun}."
    )


def _answer(rows: pd.DataFrame, inputs: PageInputs) -> str | None:
    """The largest loss over tasks of the free pick, the last step, and of the indicator whose largest loss is least."""
    table = inputs.table("recommendations")
    cheapest = table[table["topic"] == "cheapest"]
    if cheapest.empty:
        return None
    losses = table[table["topic"] == "regret"].groupby("indicator")["measured"].agg(["max", "size"])
    whole = losses[losses["size"] == len(cheapest)]["max"].sort_values()
    if LAST not in whole.index:
        return None
    text = f"Over {len(cheapest)} tasks, picking the last step costs nothing and loses at most {whole[LAST]:.3f}"
    measured = whole.drop([LAST, CHANCE], errors="ignore")
    return (
        f"{text}; the best indicator, {measured.index[0]}, at most {measured.iloc[0]:.3f}."
        if len(measured)
        else f"{text}."
    )


def _base(rows: pd.DataFrame, inputs: PageInputs) -> str | None:
    """How many tests are learned when."""
    learning = rows[rows["finding"] == "learning"]
    # A sentence that names several groups, with the share of resamples of each, is not settled.
    open_ones = learning["statement"].str.count("of resamples") > 1
    groups = Counter(conditions(row).get("group") for row in learning[~open_ones].to_dict("records"))
    groups |= {"undecided": int(open_ones.sum())} if open_ones.any() else {}
    if not groups:
        return None
    words = {"not_learned": "no learning established"}
    listed = "; ".join(
        f"{words.get(str(name), selection.named(str(name)))} {number}" for name, number in groups.most_common()
    )
    return f"Of {len(learning)} tests: {listed}."


def _tuned(rows: pd.DataFrame, inputs: PageInputs) -> str | None:
    """How many tasks gain by fine-tuning at the last step."""
    gains = rows[rows["finding"] == "gains"]
    if gains.empty:
        return None
    sure = ~gains["statement"].str.contains(NOT)
    up, down = int((sure & (gains["value"] > 0)).sum()), int((sure & (gains["value"] < 0)).sum())
    number = f"{up + down} of {len(gains)}"
    return f"At the last step the score on the task tuned on changes significantly in {number} cases: {up} rise, {down} fall."


def _transfer(rows: pd.DataFrame, inputs: PageInputs) -> str | None:
    """How many scores on other tests change at the last step."""
    material = inputs.material
    last = material.last(material.rows("tuning_difference", "difference_of_means"))
    parts = [selection.related(last, kinds) for kinds in ({"out_of_domain"}, {"cross_task"})]
    sure = pd.concat([part[material.significant(part)] for part in parts if len(part)] or [last.head(0)])
    number = sum(len(part) for part in parts)
    if not number:
        return None
    change = material.improvements(sure)
    worse, better = int((change < 0).sum()), int((change > 0).sum())
    return f"Of {number} scores on other tests at the last step, {worse} get worse and {better} get better significantly (Holm)."


def _forecasts(rows: pd.DataFrame, inputs: PageInputs) -> str | None:
    """For how many targets the best indicator orders bases better than by chance."""
    verdicts = (
        rows["statement"]
        .str.extract(r"the best of .* chance is 0\.5: (significant|not significant|too few)")[0]
        .dropna()
    )
    if verdicts.empty:
        return None
    text = f"The best indicator orders bases significantly better than by chance for {int((verdicts == 'significant').sum())}"
    few = int((verdicts == "too few").sum())
    return f"{text} of {len(verdicts)} targets" + (f"; {few} have too few bases to test." if few else ".")


def _cost(rows: pd.DataFrame, inputs: PageInputs) -> str | None:
    """The only sentence on cost."""
    return rows["statement"].iloc[0] if len(rows) == 1 else None


SUMMARIES: dict[str, Callable[[pd.DataFrame, PageInputs], str | None]] = {
    "answer": _answer,
    "base": _base,
    "tuned": _tuned,
    "transfer": _transfer,
    "forecasts": _forecasts,
    "cost": _cost,
}


def _panel(figure: Chart | None, keys: Mapping[str, Any]) -> str:
    """The panel of a figure that shows a finding with these conditions: that of its test, task or target; else empty."""
    if figure is None:
        return ""
    titles = [panel["title"] for panel in figure.figure["panels"]]
    column = figure.columns[0]  # what panels are made by
    name = f"{keys.get('target')} ({keys.get('cohort')})" if column == "cohort" else keys.get(column)
    return name if isinstance(name, str) and name in titles else ""


def _finding(row: dict[str, Any], inputs: PageInputs, charts: Mapping[str, Chart]) -> Finding:
    """A finding with its figure and the rows behind it."""
    keys = {key: value for key, value in conditions(row).items() if key != "estimator"}
    table = inputs.tables.get(row["table"])
    known = table is not None and set(keys) <= set(table.columns)
    behind = tables.matching(table, keys) if table is not None and known else pd.DataFrame()
    shown = behind.dropna(axis="columns", how="all").head(BEHIND)
    varying = [name for name in shown.columns if len(shown) == 1 or name not in keys]
    source = f"results/{row['table']}: {row['filter']}"
    figure = charts.get(FIGURES.get(row["finding"], ""))
    return Finding(
        row["statement"],
        list(row["warnings"]),
        source,
        _definition(row, keys),
        figure,
        _panel(figure, keys),
        varying,
        list(shown[varying].itertuples(index=False, name=None)),
        len(behind),
    )


def _definition(row: dict[str, Any], keys: dict[str, Any]) -> str:
    """What the statistic of a finding is: the docstring of its analysis."""
    name = keys.get("analysis")
    if row["table"] == "analysis" and name in registry.modules(analyses):
        return pages.paragraph(importlib.import_module(f"{analyses.__name__}.{name}"))
    return DEFINITIONS.get(row["table"], "")
