"""Pages of the report hold what the tables hold, need nothing else, and let no text of a study become markup."""

from __future__ import annotations

import html
import re
import resource
import shutil
from pathlib import Path

import pandas as pd
import pytest
import running
from docutils.core import publish_parts
from jinja2 import Environment
from scripts import Job

from workflow import registry
from workflow.forecasting import leaderboards
from workflow.planning import config_checks
from workflow.report import description, figures, findings, pages, presenting, sections, summaries
from workflow.storage import tables

NASTY = "<script>alert(1)</script> & `code` *bold* _x_ |y|"


def cells(text):
    """The cells of a page's rows, as text."""
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    return [[html.unescape(cell) for cell in row] for row in found if row]


def test_a_table_keeps_its_rows_and_sorts_by_full_numbers():
    table = pd.DataFrame({"name": ["a", NASTY], "value": [1 / 3, None], "n": pd.array([2, None], dtype="Int64")})
    page = pages.table_page("Table x", table, "results/x.parquet", {"value": "the share"})
    assert cells(page) == [["a", "0.3333", "2"], [NASTY, "", ""]]
    assert f'data-value="{1 / 3:.17g}"' in page
    assert 'title="the share"' in page
    assert "2 rows of <code>results/x.parquet</code>." in page
    assert NASTY not in page


def test_a_long_table_says_what_it_leaves_out():
    table = pd.DataFrame({"i": range(pages.ROWS + 1)})
    page = pages.table_page("Table x", table, "x", {})
    assert len(cells(page)) == pages.ROWS
    assert f"The first {pages.ROWS} of {pages.ROWS + 1} rows are shown." in page


def test_a_page_is_no_larger_than_a_browser_shows() -> None:
    """In base64, a third longer, with all around the table: below 2 MB; and no more is left out than must be."""
    table = pd.DataFrame({"text": ["x" * 5000] * 600})
    page = pages.table_page("T", table, "t.csv", {})
    assert 1_200_000 < len(page.encode()) < 1_500_000
    assert f"The first {len(cells(page))} of 600 rows are shown." in page


def test_pages_need_nothing_from_elsewhere():
    page = pages.page("x", "<p>y</p>")
    assert re.findall(r"(?:https?:)?//[a-z]", page.replace("// Tables", "").replace("// what", "")) == []
    assert "<link" not in page.replace('<link rel="icon" href="data:,">', "")


FINDING = {
    "section": "tuned", "finding": "gains", "statement": f"Tuning {NASTY}", "value": 0.5, "low": 0.4, "high": 0.6, "n": 9,
    "table": "analysis", "filter": '{"test": "a", "estimator": "mean"}', "warnings": ["warning, c: <b>"],
}  # fmt: skip


def test_findings_stand_beside_their_rows_and_warnings():
    table = pd.DataFrame({"test": ["a", "a", "b"], "estimator": ["mean", "median", "mean"], "value": [0.5, 0.25, 7.0]})
    page = pages.findings_page(pd.DataFrame([FINDING]), {"analysis": table}, 0.9)
    assert html.escape(FINDING["statement"]) in page and NASTY not in page
    assert cells(page) == [["a", "mean", "0.5"], ["a", "median", "0.25"]]
    assert "warning, c: &lt;b&gt;" in page
    assert "90 % confidence intervals" in page
    assert "<h2>Tuned and base</h2>" in page and "<h2>Formats</h2>" not in page


def test_rows_of_a_table_that_is_not_there_are_named_alone():
    assert pages.rows_behind(FINDING | {"table": "other"}, {}) is None
    assert pages.rows_behind(FINDING | {"filter": "step > 3"}, {"analysis": pd.DataFrame({"test": []})}) is None


def test_a_caption_quotes_the_first_findings_and_counts_the_rest():
    caption = pages.Caption("T", "S", "C", "I", [FINDING | {"statement": f"s{i} {NASTY}"} for i in range(8)])
    assert [text.split()[0] for text in caption.quoted] == [*(f"s{i}" for i in range(6)), "2"]
    parts = publish_parts(caption.rst(), writer_name="html", settings_overrides={"report_level": 1, "halt_level": 2})
    assert parts["body"].count("<li>") == 7
    assert html.escape(NASTY) in parts["body"]
    assert NASTY not in caption.html()


@pytest.mark.parametrize(
    "text",
    [
        ".. raw:: html", ".. include:: /etc/hostname", "x\n\n.. raw:: html\n\n   <b>x</b>", "x\f3 Tuned/y", "1. x", "- x",
        "{{ 6 * 7 }}", "{% if true %}", "{# gone #}", "{{ '' }}.__class__", ":field: x", "a \\ b",
        "snake_case_ and |y|_", "−.5 …",
    ],
)  # fmt: skip
def test_no_text_means_anything_to_docutils_or_to_jinja(text: str):
    """Snakemake renders the description as a template, and both it and captions by docutils with directives allowed."""
    source = Environment().from_string(f"- {pages.plain(text)}\n").render()
    body = publish_parts(source, writer_name="html", settings_overrides={"report_level": 1, "halt_level": 2})["body"]
    assert [html.unescape(item) for item in re.findall(r"<li>(.*)</li>", body)] == [" ".join(text.split())]
    assert body.count("<") == 4


@pytest.mark.parametrize("name", registry.modules(figures))
def test_each_figure_has_a_place_in_the_report(name):
    module = registry.module(figures, name)
    assert module.SECTION in sections.SECTIONS
    assert module.INTERVAL
    assert set(module.CONCLUSIONS) <= set(registry.modules(findings)) and module.CONCLUSIONS
    assert pages.title(module) and "\n" not in pages.paragraph(module.draw)


@pytest.mark.parametrize("name", registry.modules(summaries))
def test_each_summary_has_a_place_in_the_report(name):
    assert registry.module(summaries, name).SECTION in sections.SECTIONS


def test_chapters_are_in_reading_order_by_name():
    titles = [sections.title(section) for section in sections.SECTIONS]
    assert titles == sorted(titles) and titles[0] == "1 Answer"


def test_the_smoke_study_has_a_page_for_everything(smoke: Path):
    results = smoke / "study/results"
    found = {str(path.relative_to(results / "pages")) for path in (results / "pages").rglob("*.html")}
    assert found == {
        "1 Answer/Findings in words.html",
        "1 Answer/Table findings.html",
        "1 Answer/Table recommendations.html",
        "2 Untouched bases/Table indicators.html",
        "3 Tuned and base/Figure curves.html",
        "3 Tuned and base/Figure differences.html",
        "3 Tuned and base/Table performance_difference.html",
        *(f"6 Forecasts/Table {name}_own.html" for name in leaderboards.TABLES),
        *(f"6 Forecasts/Table {name}.html" for name in ("forecasts", "importance", "rankings")),
        "7 Audit/Table audit.html",
        "9 Study and tables/Configuration.html",
        "9 Study and tables/Table analysis.html",
        "9 Study and tables/Table scores.html",
    }
    blocks = (results / "captions.rst").read_text().split("\f")
    assert {block.split("\n")[0] + ".html" for block in blocks} == found


def test_pages_appear_whole_or_not_at_all(smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The disk fills up at the second page or later: the first one is shorter than the pages of figures."""
    study = shutil.copytree(smoke / "study", tmp_path / "study")
    settings = config_checks.read(running.configured(smoke))
    monkeypatch.chdir(study)
    shutil.rmtree("results/pages")
    names = ("findings", "analysis", "audit", "scores")
    job = Job(
        "present",
        {"pages": "results/pages", "captions": "results/captions.rst", "description": "results/description.rst"},
        {
            "tables": [f"results/{name}.parquet" for name in names],
            "figures": [f"results/figures/{name}.png" for name in settings["figures"]],
        },
        {"study": settings},
        config=running.configured(smoke),
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    first = (smoke / "study/results/pages/1 Answer/Findings in words.html").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (first + 1, limits[1]))
    try:
        line = job.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert line == "present: results/pages: cannot be written: File too large; fix it, then run again"
    assert not Path("results/pages").exists() and not list(Path("results").glob(".*unfinished*"))
    assert job.run() is None
    assert Path("results/pages/1 Answer/Findings in words.html").is_file()


def test_the_description_names_what_the_smoke_study_takes_up_and_leaves_out(smoke: Path):
    text = (smoke / "study/results/description.rst").read_text().replace("\\", "")
    for part in (
        "- tiny: trained, steps 0, 20",
        "- by full (full), 2 models: task mini_inference; format default; seeds 0, 1",
        "- by lora (lora), 1 models: task mini_facts; format default; seed 0",
        "- formats (sound): tests mini_inference, mini_paraphrase; formats default, io, instruct; shots 0, 2; 6 rows",
        "- tiny: step 10 saved, but not in the steps of the study",
        "- snakemake ",
    ):
        assert part in text


def test_what_is_missing_is_cut_short():
    audit = pd.DataFrame(
        {"check": ["missing_cells"] * 5 + ["gold_labels"], "evidence": [f"{i} " + "x " * 200 for i in range(6)]}
    )
    study = {"families": {}, "models": [], "suites": {}, "recipes": {}, "cohorts": {}}
    text = description.describe(study, pd.DataFrame(columns=["analysis", "family", "step"]), audit)
    missing = text.split("**Missing**")[1].split("**Made by**")[0].strip().splitlines()
    assert [line[:4] for line in missing] == ["- 0 ", "- 1 ", "- 2 ", "- 2 "]
    assert missing[-1] == "- 2 more findings of the audit"
    assert max(map(len, missing)) <= description.LONGEST + 4


def test_tables_are_named_by_their_place_and_described_by_themselves(tmp_path: Path):
    assert presenting.named(Path("results/tables/x.csv")) == "tables/x"
    tables.write([], tables.FINDINGS, tmp_path / "f.parquet")
    assert pages.described(tmp_path / "f.parquet")["statement"] == "the finding in one sentence"
