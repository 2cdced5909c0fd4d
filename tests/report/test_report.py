"""The report is one file that opens without a network, chapter by chapter; what it says follows from its tables."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import browser
import pandas as pd
import pytest
import running
import truths
import yaml

from workflow.report import sections
from workflow.storage import tables

LARGEST = 25e6  # bytes
LONGEST = 60.0  # seconds, on idle cores
RELEASE = os.environ.get("TUNECAST_AMURO_RELEASE", str(running.ROOT / "../shared/studies/amuro-release"))
PICTURES = os.environ.get("TUNECAST_PICTURES")  # folder for pictures of the pages, to be looked at
SHOWN = """
const image = document.querySelector("img"), table = document.querySelector("table.sortable");
return {
  title: document.querySelector("h1").textContent,
  picture: image && image.complete && image.naturalWidth > 100 && image.getBoundingClientRect().width > 300,
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  rows: table ? table.tBodies[0].rows.length : null,
};
"""


def made(place: Path) -> Path:
    """The report of a place's study, made by its target."""
    start = time.monotonic()
    ended = running.run(place, "report")
    assert ended.returncode == 0, ended.stderr
    print(f"{time.monotonic() - start:.1f} s")
    return place / "study/results/archive.html"


@pytest.mark.slow
def test_the_report_of_the_smoke_study_is_one_small_file(smoke: Path, tmp_path: Path) -> None:
    place = shutil.copytree(smoke, tmp_path / "place")
    running.configure(place, running.configured(place) | {"data_root": str(tmp_path / "rows-of-ann")})
    report = made(place)
    assert report.stat().st_size < LARGEST
    text = report.read_text(encoding="utf-8")
    for section in ("answer", "tuned", "audit", "study"):
        assert f'"{sections.title(section)}"' in text
    assert "learned_in_tuning" in text and "tiny: trained, steps 0, 20" in text
    assert "rows-of-ann" in text and str(tmp_path) not in text, "a whole path tells of a machine"


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report that TUNECAST_REPORT names, else that of the published study, made here from the released scores."""
    if browser.MISSING:
        pytest.skip(f"not installed: {', '.join(browser.MISSING)} (Debian: apt-get install chromium chromium-driver)")
    if named := os.environ.get("TUNECAST_REPORT"):
        return Path(named)
    if not Path(RELEASE).is_dir():
        pytest.skip("TUNECAST_AMURO_RELEASE does not name a folder with the released files")
    config = yaml.safe_load((running.ROOT / "studies/published/config.yaml").read_text(encoding="utf-8"))
    config["imports"]["olmo-1b"]["path"] = str(Path(RELEASE).resolve())
    return made(running.lay_out(tmp_path_factory.mktemp("published") / "place", config))


@pytest.fixture(scope="module", params=[1280, 1920])
def window(report: Path, request: pytest.FixtureRequest) -> Iterator[browser.Browser]:
    """The report in a window of a width in pixels."""
    with browser.opened(request.param) as opened:
        opened.open(report)
        opened.wait("return document.querySelectorAll('#app a').length > 3")
        yield opened


def click(window: browser.Browser, text: str) -> None:
    """Click on the entry of the menu with this text."""
    script = (
        "const found = [...document.querySelectorAll('#app a')].find((a) => a.textContent.trim() === arguments[0]);"
        "if (found) found.click(); return Boolean(found);"
    )
    window.wait(script, text)


@pytest.mark.browser
def test_every_page_of_every_chapter_shows(window: browser.Browser, report: Path) -> None:
    assert report.stat().st_size < LARGEST
    chapters = window.run("return categories")
    assert set(chapters) <= {sections.title(section) for section in sections.SECTIONS} and len(chapters) >= 4
    for chapter, kinds in sorted(chapters.items()):
        click(window, chapter)
        for path in sorted(path for paths in kinds.values() for path in paths):
            _check_page(window, path)
            if PICTURES:
                width = window.run("return window.innerWidth")
                window.picture(Path(PICTURES) / f"{Path(path).stem} {width}.png")
        window.run("app.setView({navbarMode: 'menu'})")
    errors = [message for message in window.messages() if "cdn.tailwindcss.com should not be used" not in message]
    assert errors == []


def _check_page(window: browser.Browser, path: str) -> None:
    """A page opens by its button, and shows its picture or its table within the window's width."""
    label = Path(path).stem
    script = (
        "const row = [...document.querySelectorAll('#app tr')].find((r) => r.textContent.includes(arguments[0]));"
        "if (row) row.querySelector('a, button').click(); return Boolean(row);"
    )
    window.wait(script, label)
    window.wait("return app.state.resultPath === arguments[0] && Boolean(document.querySelector('iframe'))", path)
    with window.frame():
        window.wait("return document.readyState === 'complete' && Boolean(document.querySelector('h1'))")
        found = window.run(SHOWN)
    assert found["overflow"] <= 0, (label, found)
    if label.startswith("Figure"):
        assert found["picture"], (label, found)
    elif label.startswith("Table"):
        assert found["rows"] is not None, (label, found)


@pytest.mark.browser
def test_a_click_sorts_and_words_filter(window: browser.Browser) -> None:
    click(window, "3 Tuned and base") if window.run("return app.state.navbarMode") == "menu" else None
    window.run("app.setView({content: 'html', contentPath: results[arguments[0]].data_uri})", _table(window))
    time.sleep(0.5)
    values = (
        "return [...document.querySelectorAll('tbody tr')].filter((r) => !r.hidden)"
        ".map((r) => r.cells[arguments[0]].dataset.value)"
    )
    with window.frame():
        place = window.run("return [...document.querySelectorAll('th')].findIndex((h) => h.textContent === 'value')")
        press = "document.querySelectorAll('th button')[arguments[0]].click()"
        window.run(press, place)
        rising = [float(value) for value in window.run(values, place) if value is not None]
        window.run(press, place)
        falling = [float(value) for value in window.run(values, place) if value is not None]
        assert rising == sorted(rising) and falling == rising[::-1] and len(set(rising)) > 2
        window.run(
            "const s = document.querySelector('input'); s.value = 'median_of_differences';"
            "s.dispatchEvent(new Event('input'));"
        )
        assert 0 < len(window.run(values, place)) < len(rising) + 1


def _table(window: browser.Browser) -> str:
    """The path of the table of differences."""
    return window.run("return Object.keys(results).find((path) => path.includes('Table performance_difference'))")


@pytest.mark.browser
def test_each_finding_follows_from_its_table(report: Path) -> None:
    results = report.parent
    found = tables.read(results / "findings.parquet")
    read = {name: tables.read(results / f"{name}.parquet") for name in set(found["table"]) if "/" not in name}
    read |= {name: pd.read_csv(results / f"{name}.csv") for name in set(found["table"]) if "/" in name}
    for row in found.to_dict("records"):
        truths.check(row, read)
