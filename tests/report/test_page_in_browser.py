"""The page of answers in headless Chromium: widths, light and dark, hover, print, accessibility, no request, no error.

The page is that of the smoke study, or the one that TUNECAST_PAGE names (`make browser TUNECAST_PAGE=results/report.html`).
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import shutil
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import browser
import page_study
import pytest
import running
from test_page import HOSTILE

from workflow.report.page import rendering

AXE = "https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz"
AXE_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
PICTURES = os.environ.get("TUNECAST_PICTURES")  # folder for pictures of the page, to be looked at
PICTURE = os.environ.get("TUNECAST_PICTURE")  # file for the picture of the first screen (`make picture`)
LARGEST = 12e6  # bytes
WINDOWS = [(width, theme) for width in (390, 1280, 1920) for theme in ("light", "dark")]
HEIGHT = 1000

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a finished study."""
    if browser.MISSING:
        pytest.skip(f"not installed: {', '.join(browser.MISSING)} (Debian: apt-get install chromium chromium-driver)")
    if named := os.environ.get("TUNECAST_PAGE"):
        return Path(named)
    place = shutil.copytree(request.getfixturevalue("smoke"), tmp_path_factory.mktemp("page") / "place")
    ended = running.run(place, "results/report.html")
    assert ended.returncode == 0, ended.stderr
    return place / "study/results/report.html"


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, from npm's registry by its hash, kept in a cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunecast" / AXE.rpartition("/")[2]
    if not cache.is_file():
        with urllib.request.urlopen(AXE, timeout=60) as answer:
            archive = answer.read()
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_bytes(archive)
    archive = cache.read_bytes()
    assert base64.b64encode(hashlib.sha512(archive).digest()).decode() == AXE_SHA512, (
        f"{cache}: another file; remove it"
    )
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        return files.extractfile("package/axe.min.js").read().decode()


def shown(window: browser.Browser, page: Path, width: int, theme: str) -> None:
    """Show a page at a width in a colour scheme."""
    window.emulate(width, HEIGHT, theme)
    window.open(page)
    window.wait("return document.readyState === 'complete'")


@pytest.fixture(scope="module")
def window(page: Path) -> Iterator[browser.Browser]:
    with browser.opened(1280) as opened:
        yield opened


def test_the_file_is_small(page: Path) -> None:
    assert page.stat().st_size < LARGEST


@pytest.mark.parametrize(("width", "theme"), WINDOWS)
def test_everything_fits_and_nothing_fails(
    window: browser.Browser, page: Path, width: int, theme: str, axe: str
) -> None:
    shown(window, page, width, theme)
    if PICTURES:
        window.picture(Path(PICTURES) / f"page {width} {theme}.png")
    for key in window.run("return [...document.querySelectorAll('figure.chart')].map((e) => e.dataset.key)"):
        window.run("document.getElementById('figure-' + arguments[0]).scrollIntoView({behavior: 'instant'})", key)
        window.wait("return Boolean(document.querySelector(`#figure-${arguments[0]} .main-svg`))", key)
        if PICTURES:
            window.picture(Path(PICTURES) / f"{key} {width} {theme}.png")
    window.run("document.querySelectorAll('details').forEach((element) => { element.open = true; })")
    time.sleep(0.3)
    wide = window.run(
        "const w = document.documentElement.clientWidth; return [...document.querySelectorAll('body *')]"
        ".filter((e) => !e.closest('.scroll, pre, .skip, .quiet, svg') && e.getBoundingClientRect().right > w + 1)"
        ".map((e) => e.tagName + '.' + e.className)"
    )
    assert wide == [] and window.run("return document.documentElement.scrollWidth <= window.innerWidth")
    # Of each kind of folded part one stays open: all of them together take axe-core minutes.
    window.run(
        "document.querySelectorAll('details').forEach((element) => { element.open = false; });"
        "['.card details', '.question', '.question li details', '.browser', '.kind', '.data', 'figure details']"
        ".forEach((kind) => { const first = document.querySelector(kind); if (first) first.open = true; })"
    )
    found = window.run_async(
        axe + "; const done = arguments[arguments.length - 1]; axe.run(document, {resultTypes: ['violations']})"
        ".then((r) => done(r.violations.filter((v) => ['serious', 'critical'].includes(v.impact))"
        ".map((v) => [v.id, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200))])))"
    )
    assert found == []
    assert window.messages() == []
    assert (
        window.run("return performance.getEntriesByType('resource').filter((e) => !e.name.startsWith('data:')).length")
        == 0
    )


@pytest.mark.parametrize("width", [1280, 1920])
def test_the_first_screen_holds_the_answer(window: browser.Browser, page: Path, width: int) -> None:
    shown(window, page, width, "light")
    if PICTURE and width == 1280:
        window.picture(Path(PICTURE))
    visible = window.run(
        "return [...document.querySelectorAll('.headline')].map((e) => e.getBoundingClientRect()).map((r) => r.bottom)"
    )
    assert visible and visible[0] < HEIGHT
    top = window.run("return document.body.innerText")
    assert "Which checkpoint should you fine-tune?" in top and re.search(r"\d of \d+ answers", top)


def hovered(window: browser.Browser, key: str) -> str:
    """Move the mouse over the points of a figure's first line, wherever they are by now, until the figure reacts."""
    for index in range(20):
        point = window.run(
            "const e = document.querySelector(`#figure-${arguments[0]} .plot`);"
            "const t = e.data.findIndex((d) => d.text && d.visible !== false), d = e._fullData[t];"
            "const x = e._fullLayout[d.xaxis.replace('x', 'xaxis')], y = e._fullLayout[d.yaxis.replace('y', 'yaxis')];"
            "const r = e.getBoundingClientRect();"
            "const i = arguments[1] % d.x.length;"
            "return [r.left + x._offset + x.c2p(x.d2c(d.x[i])), r.top + y._offset + y.c2p(d.y[i])].map(Math.round)",
            key,
            index,
        )
        window.move(*point)
        time.sleep(0.5)
        if text := window.run("return window.hovered"):
            return str(text)
    raise AssertionError(f"{key}: no reaction at {point}")


def test_each_figure_reacts_to_hover(window: browser.Browser, page: Path) -> None:
    shown(window, page, 1280, "light")
    keys = window.run("return [...document.querySelectorAll('figure.chart')].map((e) => e.dataset.key)")
    assert keys
    for key in keys:
        window.run("document.querySelector(`#figure-${arguments[0]} .plot`).scrollIntoView({behavior: 'instant'})", key)
        window.wait("return Boolean(document.querySelector(`#figure-${arguments[0]} .main-svg`))", key)
        window.run(
            "window.hovered = 0; document.querySelector(`#figure-${arguments[0]} .plot`)"
            ".on('plotly_hover', (d) => { window.hovered = d.points[0].text; });",
            key,
        )
        text = hovered(window, key)
        assert "value" in text, (key, text)


def test_a_line_switches_off_and_the_axis_changes(window: browser.Browser, page: Path) -> None:
    shown(window, page, 1280, "light")
    window.run("document.getElementById('figure-home').scrollIntoView({behavior: 'instant'})")
    window.wait("return Boolean(document.querySelector('#figure-home .main-svg'))")
    count = "return document.querySelectorAll('#figure-home .scatterlayer .trace').length"
    before = window.run(count)
    window.run("document.querySelector('#figure-home .controls input').click()")
    assert window.run(count) < before
    options = window.run("return [...document.querySelectorAll('#figure-home option')].map((e) => e.value)")
    if len(options) > 1:
        window.run(
            "const s = document.querySelector('#figure-home select'); s.value = 'tokens'; s.dispatchEvent(new Event('change'))"
        )
        text = window.run("return document.querySelector('#figure-home .main-svg').parentElement.textContent")
        assert "training tokens" in text


def test_a_sentence_opens_its_figure_with_its_panel_marked(window: browser.Browser, page: Path) -> None:
    shown(window, page, 1280, "light")
    key, panel = window.run(
        "const link = [...document.querySelectorAll('a.shows')].find((e) => e.dataset.panel);"
        "link.closest('details').open = true; link.click(); return [link.hash.slice(1), link.dataset.panel];"
    )
    window.wait("return Boolean(document.querySelector(`#${arguments[0]} .main-svg`))", key)
    titles = window.run(
        "return [...document.querySelectorAll(`#${arguments[0]} .annotation-text`)].map((e) => e.textContent)", key
    )
    assert [title for title in titles if title.startswith("▶ ")] == [f"▶ {panel}"]
    window.wait("return document.getElementById(arguments[0]).getBoundingClientRect().top < innerHeight", key)


def test_print_has_all_cards(window: browser.Browser, page: Path) -> None:
    shown(window, page, 1280, "light")
    titles = window.run("return [...document.querySelectorAll('.card h3')].map((e) => e.textContent)")
    window.emulate_print()
    heights = window.run("return [...document.querySelectorAll('.card')].map((e) => e.getBoundingClientRect().height)")
    assert titles and len(heights) == len(titles) and min(heights) > 20
    assert len(window.printed()) > 20_000


def test_hostile_texts_run_nothing(window: browser.Browser, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(rendering.page(page_study.inputs(HOSTILE)), encoding="utf-8")
    shown(window, path, 1280, "light")
    for key in window.run("return [...document.querySelectorAll('figure.chart')].map((e) => e.dataset.key)"):
        window.run("document.getElementById('figure-' + arguments[0]).scrollIntoView({behavior: 'instant'})", key)
        window.wait("return Boolean(document.querySelector(`#figure-${arguments[0]} .main-svg`))", key)
    assert window.run("return window.hit === undefined && document.querySelectorAll('iframe, main img').length === 0")
    assert window.messages() == []
