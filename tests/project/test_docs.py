"""Docs say what the code says; what they tell to do is done as they tell it."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import running
import yaml

from workflow import documenting
from workflow.jobs import job
from workflow.storage import tables
from workflow.study import config as configs

DOCS = running.ROOT / "docs"
ADDING = (DOCS / "adding.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(?P<kind>\w*)\n(?P<text>.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", documenting.PAGES)
def test_a_generated_page_is_what_its_source_makes(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == documenting.PAGES[page](), "run `make docs`"


def test_every_rule_and_its_docstring_is_on_the_page_of_rules() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((running.ROOT / "rules").glob("*.smk")))
    names = set(re.findall(r"^(?:rule|checkpoint) (\w+):", text, re.MULTILINE))
    assert names == set(re.findall(r"^\| `(\w+)` \|", documenting.rules(), re.MULTILINE))


def keys_of(node: Any) -> Iterator[str]:
    """Every key that a schema allows anywhere."""
    if isinstance(node, dict):
        yield from node.get("properties", {})
        for inner in node.values():
            yield from keys_of(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from keys_of(inner)


def test_every_key_of_a_config_is_on_its_page_and_every_block_once() -> None:
    page = documenting.configuration()
    for key in configs.schema()["properties"]:
        assert f"\n## {key}\n" in page, key
    rows = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert set(keys_of(configs.schema())) - set(configs.schema()["properties"]) <= rows
    titles = re.findall(r"^##+ (.+)$", page, re.MULTILINE)
    assert len(titles) == len(set(titles))
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#(.+?)\)", page)) <= anchors


def test_a_row_of_the_configuration_page_by_hand() -> None:
    rows = documenting.configuration().splitlines()
    assert (
        "| `beta1` | number | `0.9` | ≥ 0, < 1 | AdamW's beta1. |" in rows
        and "| `path` | path | required |  | Folder with one sub-folder for each step. New sub-folders are picked up at the next "
        "run. |"
        in rows
    )


def test_links_of_the_docs_lead_somewhere() -> None:
    for page in (running.ROOT / "README.md", *sorted(DOCS.glob("*.md"))):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), (page.name, link)


def test_the_readme_shows_a_figure() -> None:
    text = (running.ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"!\[[^\]]+\]\(docs/\w+\.png\)", text)


def test_the_answer_of_the_default_study_is_the_same_in_readme_and_docs() -> None:
    texts = [(running.ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/index.md")]
    answers = [text.split("## The answer of the default study")[1].split("\n## ")[0] for text in texts]
    assert answers[0].replace("](docs/", "](") == answers[1]


def test_the_tour_of_the_code_has_a_line_for_every_module_and_folder() -> None:
    """But for the modules inside of plug-in folders and the scripts, which are one line together."""
    text = (running.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = text.split("## Tour of the code")[1].split("```")[1]
    shown: dict[str, str] = {}
    above = [""]
    for line in tree.splitlines():
        if found := re.match(r"( *)([\w.]+/?)(?: +(.*))?$", line):
            above[len(found[1]) // 2 :] = [found[2]]
            shown["".join(above)] = found[3] or ""
    together = {path for path, text in shown.items() if text.startswith(("plug-ins:", "one thin script"))}
    assert len(together) >= 8
    for path in (running.ROOT / "workflow").rglob("*"):
        name = path.relative_to(running.ROOT).as_posix() + ("/" if path.is_dir() else "")
        inside = any(name != folder and name.startswith(folder) for folder in together)
        if (path.suffix == ".py" or path.is_dir()) and "__" not in name and not inside:
            assert name in shown, name
    for name in shown:
        assert (running.ROOT / name).exists(), name


def literals() -> list[str]:
    """Every text of the product's code, the parts of f-strings that are computed as `…`."""
    found = []
    for path in (running.ROOT / "workflow").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_messages_on_the_page_of_troubleshooting_are_those_of_the_product() -> None:
    """The first cell of each row that quotes one, but for the line that is Snakemake's."""
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    messages = [
        message for message in re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE) if not message.startswith("Error:")
    ]
    assert len(messages) >= 20
    told = literals()
    for message in messages:
        pieces = [re.escape(piece) for piece in message.split("…")]
        assert any(re.search(".*".join(pieces), text, re.DOTALL) for text in told), message


def test_what_the_page_on_memory_quotes_is_what_a_job_says() -> None:
    assert f"out of memory (…); {job.LESS['tune']}, or request more (--set-resources tune:mem_mb=MB)\n" in (
        DOCS / "memory.md"
    ).read_text(encoding="utf-8")


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


@pytest.mark.slow
def test_a_dataset(place: Path) -> None:
    rows = tables.rows(done(place, "A dataset") / "resources/tasks/plants.parquet")
    assert [(dict(row["fields"]), row["answer"], row["gold"], row["choices"]) for row in rows] == [
        ({"question": "What do plants need?"}, "light", 0, ["light", "noise"]),
        ({"question": "What do roots take up?"}, "water", 1, ["stone", "water"]),
    ]


@pytest.mark.slow
def test_tasks_of_lm_evaluation_harness(place: Path) -> None:
    found = scores(done(place, "Tasks of lm-evaluation-harness"), "harness")
    assert set(found["metric"]) == {"acc", "acc_norm", "chance"} and set(found["n"]) == {2}
    assert set(found.loc[found["primary"], "metric"]) == {"acc"}


def test_a_dataset_in_python(place: Path) -> None:
    rows = tables.rows(done(place, "A dataset in Python") / "resources/tasks/colours.parquet")
    assert [(row["answer"], row["gold"], row["choices"]) for row in rows] == [
        ("white", 0, ["white", "black"]),
        ("black", 1, ["white", "black"]),
    ]


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_prompt_format(place: Path) -> None:
    found = scores(done(place, "A prompt format"), "short")
    assert set(found["test_format"]) == {"short"} and set(found["train"]) == {"none", "mini_facts"}
    part = next((place / "study/results/predictions").rglob("suite=short/tests=*/part.parquet"))
    assert pq.ParquetFile(part).read()["test_format"].unique().to_pylist() == ["short"]


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_indicator(place: Path) -> None:
    arguments = walk(place, "An indicator")
    assert arguments == ["-n", "results/indicators.parquet"]
    assert running.planned(place, "results/indicators.parquet") == {"measure": 2, "gather": 1}


@pytest.mark.slow
def test_a_figure(place: Path) -> None:
    study = done(place, "A figure")
    assert (study / "results/figures/levels.pdf").read_bytes().startswith(b"%PDF")


# --- the tutorial ----------------------------------------------------------------------------------------------------


def unnumbered(text: str) -> str:
    """A text whose decimal numbers are blanked: other machines compute other digits."""
    return re.sub(r"\d+\.\d+", "#", text.strip())


@pytest.mark.slow
@pytest.mark.faults
def test_the_tutorial_from_checkpoints_and_rows_to_an_answer(tmp_path: Path) -> None:
    """Its files are written, its commands run as they stand, and they print what the page shows."""
    place = running.lay_out(tmp_path / "place", {})
    environment = running.ENVIRONMENT | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    printed = ""
    for block in BLOCK.finditer((DOCS / "tutorial.md").read_text(encoding="utf-8")):
        first, _, rest = block["text"].partition("\n")
        if first.startswith("# file: "):
            path = place / first.removeprefix("# file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rest, encoding="utf-8")
        elif block["kind"] == "sh":
            ended = subprocess.run(
                ["bash", "-ec", block["text"]], cwd=place, env=environment, capture_output=True, text=True
            )
            assert ended.returncode == 0, ended.stderr
            printed = ended.stdout
        elif block["kind"] == "text":
            assert unnumbered(printed) == unnumbered(block["text"])
    assert (place / "my-study/results/report.html").is_file()
    scores = pd.read_parquet(place / "my-study/results/scores.parquet").query("metric == 'accuracy'")
    assert scores.groupby(["step", "recipe"]).size().to_dict() == {
        (20, "full"): 2, (20, "none"): 1, (400, "full"): 2, (400, "none"): 1,
    }  # fmt: skip
