"""Paths of a config as people write them: braces are no wildcards, `~` is the home folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import running

from workflow.data import corpora
from workflow.errors import StudyError
from workflow.planning import config_checks
from workflow.released.readers import amuro_char
from workflow.study import config as configs

ROW = {"sentence1": "A cat sleeps.", "sentence2": "A cat is awake.", "label": 1}
QUESTION = {"question": "who sleeps", "answer": ["the cat"]}
BRACES = "with {step} and {lr,.*}{"
COHORT = {"key": "id", "indicators": ["ppl"], "targets": ["score"], "fields": ["size"]}


@pytest.fixture
def braced(checkpoints, tmp_path: Path) -> Path:
    """A study all of whose inputs from elsewhere lie in folders with braces in their names, one of them a wildcard's name."""
    place = tmp_path / "place"
    outside = place / BRACES
    shutil.copytree(checkpoints["olmo"].path, outside / "steps" / "step{x}10")
    for folder, row in (("rte", ROW), ("nq_open", QUESTION)):
        for split in ("train", "validation"):
            path = outside / "rows" / folder / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row | {"idx": n}) + "\n" for n in range(8)))
    (outside / "rows" / "text{corpus}" / "wiki").mkdir(parents=True)
    (outside / "rows" / "text{corpus}" / "wiki" / "train.jsonl").write_text('{"text": "The cat sleeps."}\n')
    for name in amuro_char.FILES:
        (outside / name).write_text("")
    text = {"corpus": "text{corpus}"}
    config = {
        "families": {
            "mine": {"source": "folder", "path": f"../{BRACES}/steps", "pattern": "step{{x}}{step}"},
            "further": {
                "source": "trained",
                "pretraining": text | {"save": [1], "continue_from": {"folder": f"../{BRACES}/steps/step{{x}}10"}},
            },
        },
        "data_root": f"../{BRACES}/rows",
        "passages": text,
        "suites": {"plain": {"tests": ["rte", "nq_open_context"], "limit": 4}},
        "indicators": {"ppl": {"measure": "clm", "split": "train", **text}},
        "imports": {"others": {"reader": "amuro_char", "path": f"../{BRACES}"}},
        "cohorts": {"table": COHORT | {"path": "{cohort}.csv"}},
    }
    running.lay_out(place, config)
    rows = [{"id": n, "size": n % 3, "ppl": n * 0.7, "score": n * 0.1} for n in range(12)]
    pd.DataFrame(rows).to_csv(place / "study" / "{cohort}.csv", index=False)
    return place


@pytest.mark.slow
def test_braces_in_paths_from_elsewhere_are_no_wildcards(braced: Path) -> None:
    jobs = running.planned(braced)
    assert jobs["fetch"] == 2 and jobs["prepare"] == 2
    assert jobs["pretrain"] == jobs["adopt"] == 1 and jobs["measure"] == 2 and jobs["pair"] and jobs["forecast"]
    made = [f"resources/tasks/{name}.parquet" for name in ("rte", "nq_open_context")]
    made += ["resources/bases/family=mine/step=10/base.json", "results/pairs/cohort=table/part.parquet"]
    ended = running.run(braced, *made)
    assert ended.returncode == 0, ended.stderr
    assert running.planned(braced, *made) == {}
    rows = braced / BRACES / "rows" / "rte" / "train.jsonl"
    rows.write_text(rows.read_text().replace("awake", "tired"))
    assert running.planned(braced, *made) == {"prepare": 1}, "an input with braces is watched like any other"


@pytest.mark.slow
def test_a_tunecast_in_a_folder_with_braces_is_one_line(tmp_path: Path) -> None:
    """Snakemake itself cannot run a script there."""
    ended = running.run(running.lay_out(tmp_path / "tune{cast}", running.SMOKE), "--dry-run")
    assert ended.returncode == 1
    told = [line for line in (ended.stdout + ended.stderr).splitlines() if "braces" in line]
    assert told == [
        f"{tmp_path}/tune{{cast}}: has braces in its name, which Snakemake takes for wildcards; move Tunecast to another folder"
    ]
    assert "Traceback" not in ended.stderr


def test_a_tilde_is_the_home_folder_in_every_path_of_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    config = {
        "families": {
            "a": {"source": "folder", "path": "~/steps"},
            "b": {
                "source": "trained",
                "pretraining": {"corpus": "~/text", "save": [1], "continue_from": {"folder": "~"}},
            },
        },
        "suites": {"s": {"tests": ["rte"]}},
        "data_root": "~/rows",
        "passages": {"corpus": "~/text/~"},
        "indicators": {
            name: {"measure": name, "corpus": "~/text"} for name in ("clm", "span_corruption", "weight_noise")
        },
        "imports": {"i": {"reader": "amuro_char", "path": "~/released"}},
    }
    found = configs.validated(config)
    families = found["families"]
    assert families["a"]["path"] == "/home/ann/steps" and found["data_root"] == "/home/ann/rows"
    assert families["b"]["pretraining"]["corpus"] == "/home/ann/text"
    assert families["b"]["pretraining"]["continue_from"]["folder"] == "/home/ann"
    assert found["passages"]["corpus"] == "/home/ann/text/~"
    assert {block["corpus"] for block in found["indicators"].values()} == {"/home/ann/text"}
    assert found["imports"]["i"]["path"] == "/home/ann/released"
    assert configs.validated(found) == found
    assert configs.validated(config | {"data_root": "~nobody-of-this-name/x"})["data_root"] == "~nobody-of-this-name/x"


def test_every_path_of_the_schema_is_marked_as_one() -> None:
    """What a description calls a folder or a file is a path; `file` of a pattern of splits is none."""
    unmarked = [
        place
        for place, node in _nodes(configs.schema(), ())
        if node.get("type") in ("string", ["string", "null"])
        and "models" not in place  # of an import: a pattern
        and place[-1] in ("path", "folder", "table", "printed", "corpus", "data_root")
        and node.get("format") != "path"
    ]
    assert unmarked == []


def _nodes(node: object, place: tuple[str, ...]) -> list[tuple[tuple[str, ...], dict]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    own = [(place, node)] if isinstance(node, dict) and place else []
    return own + [found for key, value in inner for found in _nodes(value, (*place, str(key)))]


def test_a_home_folder_is_no_way_out_of_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cohort = COHORT | {"path": "~/variants.csv"}
    with pytest.raises(StudyError, match="leaves the study's folder; expected a file inside it"):
        config_checks.read({"cohorts": {"c": cohort}})
    with pytest.raises(StudyError, match="no such folder; expected one sub-folder for each text domain"):
        corpora.folder(
            configs.validated({"cohorts": {"c": cohort}, "passages": {"corpus": "~/none"}})["passages"], None
        )
