"""Docs say what the code says; what they tell to do is done as they tell it."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import running
import yaml

from workflow import documenting
from workflow.storage import tables

DOCS = running.ROOT / "docs"
ADDING = (DOCS / "adding.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", documenting.PAGES)
def test_a_generated_page_is_what_its_source_makes(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == documenting.PAGES[page](), "run `make docs`"


def test_every_rule_and_its_docstring_is_on_the_page_of_rules() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((running.ROOT / "rules").glob("*.smk")))
    names = set(re.findall(r"^(?:rule|checkpoint) (\w+):", text, re.MULTILINE))
    assert names == set(re.findall(r"- \*\*`(\w+)`\*\*", documenting.rules()))


def test_links_of_the_docs_lead_somewhere() -> None:
    for page in (running.ROOT / "README.md", *sorted(DOCS.glob("*.md"))):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), (page.name, link)


def test_the_readme_is_short_and_shows_a_figure() -> None:
    text = (running.ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"!\[[^\]]+\]\(docs/\w+\.png\)", text)


def test_the_readme_says_what_every_module_and_folder_is_for() -> None:
    tree = (running.ROOT / "README.md").read_text(encoding="utf-8").split("## What is where")[1].split("```")[1]
    for path in (running.ROOT / "workflow").iterdir():
        if not path.name.startswith("_"):
            assert re.search(rf"(?<![\w.]){re.escape(path.name)}{'/' if path.is_dir() else ''}(?!\w)", tree), path.name


# --- walking through `adding.md` -------------------------------------------------------------------------------------


def walk(place: Path, title: str) -> list[str]:
    """Do what a section says: write its files, apply its changes, extend the config; returns the arguments of its
    command."""
    section = ADDING.split(f"## {title}\n")[1].split("\n## ")[0]
    arguments: list[str] = []
    for block in BLOCK.finditer(section):
        first, _, rest = block["text"].partition("\n")
        kind, _, path = first.removeprefix("# ").partition(": ")
        if block["kind"] == "sh":
            arguments = shlex.split(first)
        elif first == "# config":
            study = running.configured(place)
            _extend(study, yaml.safe_load(rest))
            running.configure(place, study)
        elif kind == "file":
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(rest, encoding="utf-8")
        else:
            assert kind == "change", first
            _apply(place / path, rest.splitlines())
    command = ["snakemake", "--directory", "study", "--cores", "2"]
    assert arguments[: len(command)] == command
    return arguments[len(command) :]


def _extend(block: dict[str, Any], more: dict[str, Any]) -> None:
    """Add to a config: entries of blocks beside those that are there, elements of lists behind them."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(block.get(key), dict):
            _extend(block[key], value)
        elif isinstance(value, list) and key in block:
            block[key] = [*block[key], *value]
        else:
            block[key] = value


def _apply(path: Path, lines: list[str]) -> None:
    """Apply a change: lines with - and without a sign are there, once and together; they become those with + and
    without."""
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, (path.name, before)
    path.write_text(text.replace(before, after), encoding="utf-8")


@pytest.fixture
def place(smoke: Path, tmp_path: Path) -> Path:
    """A copy of the finished smoke study to change."""
    return shutil.copytree(smoke, tmp_path / "place")


def done(place: Path, title: str) -> Path:
    """Walk through a section to its end; returns the study's folder."""
    ended = running.run(place, *walk(place, title))
    assert ended.returncode == 0, ended.stderr
    return place / "study"


def scores(study: Path, suite: str) -> pd.DataFrame:
    return tables.read(study / f"results/slices/train=mini_facts/suite={suite}/scores.parquet")


def test_a_dataset(place: Path) -> None:
    rows = tables.rows(done(place, "A dataset") / "resources/tasks/colours.parquet")
    assert [(row["answer"], row["gold"], row["choices"]) for row in rows] == [
        ("white", 0, ["white", "black"]),
        ("black", 1, ["white", "black"]),
    ]


def test_a_family(place: Path) -> None:
    for step in (10, 20):
        source = place / f"study/resources/pretrained/family=tiny/step={step}"
        shutil.copytree(source, place / f"runs/checkpoint-{step}")
    arguments = walk(place, "A family")
    assert arguments == ["-n"]
    found = running.planned(place)
    assert found["fetch"] == 2 and found["measure"] == 2
    # Two bases on one suite as a whole and on the two tests of each of two others; three tuned models on two suites each.
    assert found["predict"] == 2 * (1 + 2 + 2) + 3 * 2
    assert found["tune"] == 3


def test_a_prompt_format(place: Path) -> None:
    found = scores(done(place, "A prompt format"), "short")
    assert set(found["test_format"]) == {"short"} and set(found["train"]) == {"none", "mini_facts"}
    part = next((place / "study/results/predictions").rglob("suite=short/tests=*/part.parquet"))
    assert pq.ParquetFile(part).read()["test_format"].unique().to_pylist() == ["short"]


def test_a_metric(place: Path) -> None:
    found = scores(done(place, "A metric"), "published")
    words = found[found["metric"] == "words"]
    assert set(words["test"]) == {"mini_question"} and len(words) == 3
    part = next(
        (place / "study/results/predictions").rglob("recipe=lora/seed=0/suite=published/tests=all/part.parquet")
    )
    outputs = [row["output"] for row in tables.rows(part) if row["test"] == "mini_question"]
    mean = sum(len(output.split()) for output in outputs) / len(outputs)
    items = next((place / "study/results/items").rglob("recipe=lora/seed=0/suite=published/tests=all/part.parquet"))
    values = [row["value"] for row in tables.rows(items) if row["metric"] == "words"]
    assert sum(values) / len(values) == pytest.approx(mean)


def test_an_indicator(place: Path) -> None:
    arguments = walk(place, "An indicator")
    assert arguments == ["-n", "results/indicators.parquet"]
    assert running.planned(place, "results/indicators.parquet") == {"measure": 2, "gather": 1}


def test_a_figure(place: Path) -> None:
    study = done(place, "A figure")
    assert (study / "results/figures/levels.pdf").read_bytes().startswith(b"%PDF")
