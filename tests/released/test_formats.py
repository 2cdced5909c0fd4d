"""Results of other harnesses: each format by hand, what is derived, what is told of a file, and what is refused in a line."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import running

from workflow.analysis import best_base, recommendation
from workflow.analysis.evidence import Evidence
from workflow.audit import inputs
from workflow.audit.checks import ambiguous_tests, released_files, scores_below_chance
from workflow.errors import StudyError
from workflow.evaluation import metric_names
from workflow.released import runs, score_rows
from workflow.released.readers import every_eval_ever, lighteval, lm_eval, olmes, table
from workflow.statistics import Resampling
from workflow.storage import tables
from workflow.study import config, grid, token_axis

OLD = {
    "results": {
        "arc_easy": {"acc": 0.25, "acc_stderr": 0.0435194, "acc_norm": 0.35, "acc_norm_stderr": 0.0479372},
        "lambada": {"ppl": 12.5, "ppl_stderr": 0.5, "acc": 0.5, "acc_stderr": 0.0502519},
    },
    "versions": {"arc_easy": 0, "lambada": 0},
    "config": {"model": "hf", "model_args": "pretrained=org/m-70m,revision=step1000", "num_fewshot": 0, "limit": None},
}
NEW = {
    "results": {
        "arc_easy": {
            "alias": "arc_easy", "name": "arc_easy", "sample_len": 4, "acc,none": 0.5, "acc_stderr,none": 0.2886751,
            "acc_norm,none": 0.25, "acc_norm_stderr,none": 0.25,
        },
        "wikitext": {"alias": "wikitext", "bits_per_byte,none": 0.9, "bits_per_byte_stderr,none": "N/A"},
        "gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.0, "exact_match_stderr,strict-match": 0.0},
        "mmlu": {"alias": "mmlu", " ": " ", "acc,none": 0.5, "acc_stderr,none": 0.1},
        "mmlu_law": {"alias": " - law", "acc,none": 0.5, "acc_stderr,none": 0.1},
    },
    "group_subtasks": {"mmlu": ["mmlu_law"], "mmlu_law": []},
    "configs": {
        "arc_easy": {"output_type": "multiple_choice", "num_fewshot": 0},
        "mmlu_law": {"output_type": "multiple_choice", "doc_to_choice": ["A", "B", "C", "D"], "num_fewshot": 5},
    },
    "n-shot": {"arc_easy": 0, "wikitext": 0, "gsm8k": 5, "mmlu_law": 5},
    "n-samples": {"arc_easy": {"original": 9, "effective": 4}, "mmlu_law": {"original": 26, "effective": 26}},
    "higher_is_better": {"wikitext": {"bits_per_byte": False}, "arc_easy": {"acc": True}},
    "config": {"model": "hf", "model_args": {"pretrained": "org/m-70m", "revision": "step1000"}, "limit": None},
    "date": 1735689600.0,
}  # fmt: skip
OLMES = {
    "task_name": "arc_easy",
    "model_config": {"model": "org/m-70m", "revision": "step1000-tokens2B"},
    "task_config": {"num_shots": 5, "primary_metric": "acc_per_char", "metadata": {"alias": "arc_easy:rc::olmes"}},
    "num_instances": 4,
    "metrics": {"acc_raw": 0.25, "acc_per_char": 0.5, "primary_score": 0.5},
}
LIGHT = {
    "config_general": {"model_name": "org/m-70m", "model_config": {"model_name": "org/m-70m", "revision": "step1000"}},
    "results": {
        "leaderboard|arc:easy|25": {"acc": 0.5, "acc_stderr": 0.1},
        "leaderboard|mmlu:law|5|0": {"acc": 0.25, "acc_stderr": 0.1},
        "leaderboard|mmlu:_average|5": {"acc": 0.25, "acc_stderr": 0.1},
        "all": {"acc": 0.4},
    },
}
EVERY = {
    "schema_version": "0.3.0",
    "evaluation_timestamp": "1735689600",
    "model_info": {"id": "org/m-70m", "additional_details": {"revision": "step1000"}},
    "evaluation_results": [
        {
            "evaluation_name": "arc_easy",
            "metric_config": {"metric_id": "acc", "lower_is_better": False, "min_score": 0, "max_score": 100},
            "score_details": {"score": 50.0, "uncertainty": {"standard_error": {"value": 5.0}, "num_samples": 101}},
            "generation_config": {"additional_details": {"num_fewshot": "3"}},
        }
    ],
}
ROWS = "size,step,task,acc,rows\n70m,1000,arc_easy,0.5,100\n70m,2000,arc_easy,0.6,100\n"
COLUMNS = {
    "family": "size",
    "step": "step",
    "test": "task",
    "metric": "=acc",
    "value": "acc",
    "n": "rows",
    "shots": "=0",
}
READERS = {
    "lm_eval": lm_eval,
    "olmes": olmes,
    "lighteval": lighteval,
    "every_eval_ever": every_eval_ever,
    "table": table,
}
MODELS = {"models": [{"model": "org/m-{family}"}]}


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def adopt(folder: Path, reader: str = "lm_eval", **block: object) -> score_rows.ImportedResults:
    own = {"columns": COLUMNS} if reader == "table" else MODELS
    return score_rows.import_results({"path": str(folder), "reader": reader} | own | block, READERS[reader], reader)


def score(found: score_rows.ImportedResults, test: str, metric: str, **keys: object) -> dict:
    [row] = [r for r in found.scores if (r["test"], r["metric"]) == (test, metric) and keys.items() <= r.items()]
    return row


# lm-evaluation-harness


def test_old_results_by_hand(tmp_path: Path) -> None:
    """100 rows: .25 * .75 / .0435194² + 1; the perplexity of the same test has as many."""
    write(tmp_path, "zero-shot/m_step1000.json", OLD)
    found = adopt(tmp_path)
    acc, norm, ppl = (
        score(found, *names) for names in (("arc_easy", "acc"), ("arc_easy", "acc_norm"), ("lambada", "ppl"))
    )
    assert {key: acc[key] for key in ("family", "step", "shots", "recipe", "suite", "value", "n", "primary")} == {
        "family": "70m", "step": 1000, "shots": 0, "recipe": "none", "suite": "lm_eval", "value": 0.25, "n": 100, "primary": True,
    }  # fmt: skip
    assert (norm["value"], norm["n"], norm["primary"]) == (0.35, 100, False)
    assert (ppl["value"], ppl["n"], ppl["better"], ppl["primary"]) == (12.5, 100, "lower", False)
    assert acc["low"] == pytest.approx(0.25 - 1.959964 * 0.0435194)
    assert score(found, "arc_easy", "chance")["value"] == 0.25
    assert [row["remark"] for row in found.files] == [None]


def test_new_results_by_hand(tmp_path: Path) -> None:
    write(tmp_path, "org__m-70m/results_2025-01-01T00-00-00.0.json", NEW)
    found = adopt(tmp_path)
    assert (score(found, "arc_easy", "acc")["n"], score(found, "arc_easy", "acc")["shots"]) == (4, 0)
    wiki = score(found, "wikitext", "bits_per_byte")
    assert (wiki["better"], wiki["error"], wiki["primary"]) == ("lower", None, True)
    assert score(found, "gsm8k", "exact_match,strict-match")["shots"] == 5
    law, whole = score(found, "mmlu_law", "acc"), score(found, "mmlu", "acc")
    assert (law["part_of"], law["n"], whole["part_of"], whole["shots"], whole["n"]) == ("mmlu", 26, None, 5, 26)
    assert score(found, "mmlu", "chance")["value"] == score(found, "mmlu_law", "chance")["value"] == 0.25
    assert metric_names.parts(tables.frame(pa.Table.from_pylist(found.scores))) == {"mmlu_law"}


def test_logged_rows_are_read_once_where_they_make_the_score(tmp_path: Path) -> None:
    """Two runs in one second append to one file: each row is there twice, and counts once. Three answers a row: chance 1/3."""
    for step in (1000, 2000):
        content = {
            **NEW,
            "config": {**NEW["config"], "model_args": {"pretrained": "org/m-70m", "revision": f"step{step}"}},
        }
        time = f"2025-01-01T00-00-0{step // 1000}.0"
        write(tmp_path, f"org__m-70m/results_{time}.json", content)
        rows = [
            {"doc_id": i, "doc_hash": f"h{i}", "filter": "none", "resps": [1, 2, 3], "acc": float(i < 2)}
            for i in range(4)
        ]
        write(
            tmp_path, f"org__m-70m/samples_arc_easy_{time}.jsonl", "".join(json.dumps(row) + "\n" for row in rows * 2)
        )
    found = adopt(tmp_path)
    items = [row for row in found.items if row["step"] == 2000]
    assert [(row["id"], row["value"]) for row in items] == [("0:h0", 1.0), ("1:h1", 1.0), ("2:h2", 0.0), ("3:h3", 0.0)]
    assert {row["metric"] for row in found.items} == {"acc"} and len(found.items) == 8
    assert score(found, "arc_easy", "chance", step=1000)["value"] == pytest.approx(1 / 3)


def test_rows_that_differ_between_models_are_not_paired(tmp_path: Path) -> None:
    for step, rows in ((1000, 4), (2000, 2)):
        content = {
            **NEW,
            "config": {**NEW["config"], "model_args": {"pretrained": "org/m-70m", "revision": f"step{step}"}},
        }
        time = f"2025-01-01T00-00-0{step // 1000}.0"
        write(tmp_path, f"results_{time}.json", content)
        lines = [json.dumps({"doc_id": i, "filter": "none", "acc": float(i % 2)}) + "\n" for i in range(rows)]
        write(tmp_path, f"samples_arc_easy_{time}.jsonl", "".join(lines))
    assert adopt(tmp_path).items == []


def test_a_list_of_prompts_and_the_arguments_of_gpt_neox(tmp_path: Path) -> None:
    entries = [{"task_name": "wino", "prompt_name": p, "em": 0.5, "em_stderr": 0.1, "prompt_jinja": "x"} for p in "ab"]
    config_ = {"model": "neox", "model_args": {"iteration": 1500, "load": "/runs/70m_new/"}, "num_fewshot": 0}
    write(tmp_path, "eval_12-30-2022-23-03-12.json", {"results": entries, "config": config_})
    found = adopt(tmp_path, models=[{"model": "/runs/{family}_new", "tokens_per_step": 4194304}])
    row = score(found, "wino+a", "em")
    assert (row["family"], row["step"], row["tokens"]) == ("70m", 1500, 1500 * 4194304)


# What a run is of


def test_the_table_of_the_docs_is_read_as_they_say(tmp_path: Path) -> None:
    text = (
        (Path(__file__).parents[2] / "docs" / "adding.md").read_text("utf-8").split("## Results that already exist")[1]
    )
    csv = text.split("# file: study/scores/mine.csv\n")[1].split("```")[0]
    block = config.yaml.safe_load(text.split("# config\n")[1].split("```")[0])["imports"]["mine"]
    write(tmp_path, "mine.csv", csv)
    found = adopt(tmp_path, "table", columns=block["columns"])
    assert {row["family"] for row in found.scores} == {"70m", "160m"}
    assert score(found, "arc_easy", "acc", family="160m", step=2000)["value"] == 0.46
    config.validated({"imports": {"mine": block}})


def test_the_first_pattern_that_fits_says_family_step_seed_and_fields() -> None:
    run = runs.Run("f", "org/DataDecide-dolma1_7-150M", "step1250-seed-2", ())
    patterns = [
        {"model": "other/*"},
        {"model": "org/DataDecide-{data}-{size}", "revision": "step{step}-seed-{seed}", "family": "{data}-{size}"},
    ]
    model, remarks = runs.model_of(run, "x.json", {"models": patterns})
    assert (model.family, model.step, model.seed, remarks) == ("dolma1_7-150m", 1250, 2, [])
    assert model.fields == {"data": "dolma1_7", "size": "150M"}
    patterns[1]["family"] = "{data}-{size}-seed{seed}"
    model, _ = runs.model_of(run, "x.json", {"models": patterns})
    assert (model.family, model.seed) == ("dolma1_7-150m-seed2", 0)


@pytest.mark.parametrize(
    ("revision", "step", "tokens"),
    [("step1000-tokens4B", 1000, 4e9), ("step1000", 1000, None), ("global_step7", 7, None)],
)
def test_revisions_give_step_and_tokens_by_themselves(revision: str, step: int, tokens: float | None) -> None:
    model, _ = runs.model_of(runs.Run("f", "allenai/OLMo-1B", revision, ()), "x.json", {})
    assert (model.family, model.step, model.tokens) == ("olmo-1b", step, tokens)


def test_main_is_the_step_that_the_study_says() -> None:
    run = runs.Run("f", "org/m", "main", ())
    assert runs.model_of(run, "x.json", {"models": [{"main_step": 143000}]})[0].step == 143000
    with pytest.raises(StudyError, match="names no training step; expected `main_step`"):
        runs.model_of(run, "x.json", {})


def test_where_name_and_file_differ_the_file_is_followed_and_it_is_told(tmp_path: Path) -> None:
    write(tmp_path, "five-shot/m-5shot_step2000.json", OLD)
    found = adopt(tmp_path)
    assert {(row["step"], row["shots"]) for row in found.scores} == {(1000, 0)}
    assert [(row["remark"], row["evidence"]) for row in found.files] == [
        ("mismatch", "its name says step 2000, the file 1000"),
        ("mismatch", "its name says 5 shots, the file 0"),
    ]


def test_of_one_score_in_two_files_the_later_is_taken_and_it_is_told(tmp_path: Path) -> None:
    again = json.loads(json.dumps(OLD))
    again["results"]["arc_easy"]["acc"] = 0.2500001
    write(tmp_path, "b_12-30-2022-23-03-12.json", OLD)
    write(tmp_path, "a_12-31-2022-23-03-12.json", again)
    found = adopt(tmp_path)
    assert score(found, "arc_easy", "acc")["value"] == 0.2500001
    [told] = [row for row in found.files if row["remark"] == "repeated"]
    assert told["file"].startswith("a_") and "4 of its scores are also in b_" in told["evidence"]
    assert (
        "1 with another value, acc of arc_easy by 0.0000" in told["evidence"] and "the later file" in told["evidence"]
    )


def test_means_are_over_whole_sets_alone_and_parts_say_so(tmp_path: Path) -> None:
    """(.25 + .5) / 2 with error √(.0435² + .0503²) / 2; a model that lacks a part has no mean."""
    write(tmp_path, "a.json", OLD)
    fewer = {**OLD, "results": {"lambada": OLD["results"]["lambada"]}, "config": {**OLD["config"]}}
    fewer["config"]["model_args"] = "pretrained=org/m-70m,revision=step2000"
    write(tmp_path, "b.json", fewer)
    found = adopt(tmp_path, means={"both": ["arc_easy", "lambada"]})
    row = score(found, "both", "acc")
    assert (row["step"], row["value"], row["n"]) == (1000, 0.375, 200)
    assert row["error"] == pytest.approx((0.0435194**2 + 0.0502519**2) ** 0.5 / 2)
    assert score(found, "lambada", "acc", step=2000)["part_of"] == "both"


def test_metric_chance_percent_and_skip_are_the_study_s(tmp_path: Path) -> None:
    percent = json.loads(json.dumps(OLD))
    percent["results"]["arc_easy"] = {"acc": 25.0, "acc_stderr": 4.35194, "acc_norm": 35.0, "acc_norm_stderr": 4.79372}
    percent["results"]["lambada"] = {"acc": 50.0, "acc_stderr": 5.02519}
    write(tmp_path, "a.json", percent)
    write(tmp_path, "broken.json", "{")
    found = adopt(tmp_path, percent=["acc*"], skip=["broken*"], metrics={"arc*": "acc_norm"}, chance={"arc_easy": 0.2})
    assert score(found, "arc_easy", "acc_norm")["primary"] and score(found, "arc_easy", "acc")["value"] == 0.25
    assert score(found, "arc_easy", "chance")["value"] == 0.2
    assert [(row["file"], row["remark"]) for row in found.files] == [("a.json", None), ("broken.json", "skipped")]


# The other formats


def test_olmes_by_hand(tmp_path: Path) -> None:
    """Two of four right: error √(.25 / 3); four answers in every row."""
    write(tmp_path, "task-000-arc_easy-metrics.json", OLMES)
    write(tmp_path, "metrics-all.jsonl", json.dumps(OLMES) + "\n")
    rows = [
        {"doc_id": i, "native_id": 7, "metrics": {"acc_per_char": i % 2}, "model_output": [{}] * 4} for i in range(4)
    ]
    write(tmp_path, "task-000-arc_easy-predictions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    found = adopt(tmp_path, "olmes")
    row = score(found, "arc_easy:rc::olmes", "acc_per_char")
    assert (row["step"], row["tokens"], row["shots"], row["n"], row["primary"]) == (1000, 2e9, 5, 4, True)
    assert row["error"] == pytest.approx((0.25 / 3) ** 0.5)
    assert score(found, "arc_easy:rc::olmes", "chance")["value"] == 0.25
    assert [(item["id"], item["value"]) for item in found.items] == [("0", 0.0), ("1", 1.0), ("2", 0.0), ("3", 1.0)]
    assert not [row for row in found.files if row["remark"]]


def test_lighteval_by_hand(tmp_path: Path) -> None:
    time = "2025-01-01T00-00-00.123456"
    write(tmp_path, f"results/org/m-70m/results_{time}.json", LIGHT)
    details = tmp_path / "details" / "org" / "m-70m" / time / f"details_leaderboard|arc:easy|25_{time}.parquet"
    details.parent.mkdir(parents=True)
    rows = [
        {"doc": {"choices": ["a", "b"]}, "metric": {"acc": i % 2}, "model_response": {"text": "a"}} for i in range(4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), details)
    found = adopt(tmp_path, "lighteval")
    row = score(found, "leaderboard|arc:easy", "acc")
    assert (row["step"], row["shots"], row["value"], row["error"]) == (1000, 25, 0.5, 0.1)
    assert score(found, "leaderboard|arc:easy", "chance")["value"] == 0.5 and len(found.items) == 4
    assert score(found, "leaderboard|mmlu:law", "acc")["part_of"] == "leaderboard|mmlu:_average"
    assert score(found, "leaderboard|mmlu:law", "acc")["shots"] == 5


def test_every_eval_ever_by_hand(tmp_path: Path) -> None:
    write(tmp_path, "a.json", EVERY)
    row = score(adopt(tmp_path, "every_eval_ever"), "arc_easy", "acc")
    assert (row["step"], row["shots"], row["value"], row["error"], row["n"]) == (1000, 3, 0.5, 0.05, 101)


def test_a_table_by_hand(tmp_path: Path) -> None:
    """As CSV and as Parquet; the error of a share follows from its rows: √(.25 / 99)."""
    write(tmp_path / "csv", "a.csv", ROWS)
    pq.write_table(
        pa.Table.from_pylist(
            [
                {"size": "70m", "step": s, "task": "arc_easy", "acc": v, "rows": 100}
                for s, v in ((1000, 0.5), (2000, 0.6))
            ]
        ),
        (tmp_path / "a.parquet"),
    )
    found = [adopt(tmp_path / "csv", "table"), adopt(tmp_path, "table", files=["*.parquet"])]
    assert found[0].scores == found[1].scores
    row = score(found[0], "arc_easy", "acc", step=1000)
    assert (row["family"], row["value"], row["shots"], row["error"]) == (
        "70m",
        0.5,
        0,
        pytest.approx((0.25 / 99) ** 0.5),
    )


# What is refused


def changed(content: dict, *path: object, to: object = None) -> dict:
    """A deep copy with one value changed, or removed."""
    whole = json.loads(json.dumps(content))
    place = whole
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return whole


NAN = float("nan")
BAD = [
    ("lm_eval", "a.json", "{", "not JSON"),
    ("lm_eval", "a.json", "[" * 100_000, "not JSON"),
    ("lm_eval", "a.json", "[]", "expected a JSON object"),
    ("lm_eval", "a.json", {"table_results": {}, "model_args": ""}, "'results' is missing"),
    ("lm_eval", "a.json", changed(OLD, "config"), "'config' is missing"),
    ("lm_eval", "a.json", changed(OLD, "results", to={}), "not empty"),
    ("lm_eval", "a.json", changed(OLD, "results", "arc_easy", to=0.5), "as results of arc_easy"),
    ("lm_eval", "a.json", changed(OLD, "results", to=[{"em": 1}]), "with 'task_name'"),
    ("lm_eval", "a.json", changed(OLD, "config", "model_args", to="org/m"), "expected name=value"),
    ("lm_eval", "a.json", changed(OLD, "config", "model_args", to="revision=step1"), "found model 'hf'"),
    ("lm_eval", "a.json", changed(OLD, "config", "model_args", to="pretrained=org/m-70m"), "names no training step"),
    ("lm_eval", "a.json", changed(OLD, "config", "model_args", to={"iteration": 5}), "without the folder"),
    ("lm_eval", "a.json", changed(OLD, "config", "num_fewshot"), "config.num_fewshot"),
    ("lm_eval", "a.json", changed(OLD, "config", "num_fewshot", to=-1), "demonstrations"),
    ("lm_eval", "a.json", changed(OLD, "results", "arc_easy", "acc", to=25.0), "percent"),
    ("lm_eval", "a.json", changed(OLD, "results", "arc_easy", "acc", to=-0.1), "a share from 0 to 1"),
    ("lm_eval", "a.json", changed(OLD, "results", "arc_easy", "acc", to="0.5"), "expected a number"),
    ("lm_eval", "a.json", changed(OLD, "results", "arc_easy", "acc", to=True), "expected a number"),
    ("lm_eval", "a.json", changed(OLD, "results", "arc_easy", "acc_stderr", to=-1), "as standard error"),
    ("lm_eval", "a.json", changed(OLD, "results", "arc_easy", "acc_stderr", to="?"), "'N/A'"),
    ("lm_eval", "a.json", changed(OLD, "results", "a\nb", to={"acc": 0.5}), "printable"),
    ("lm_eval", "a.json", changed(OLD, "results", "x" * 300, to={"acc": 0.5}), "printable"),
    ("lm_eval", "samples_arc_2025-01-01T00-00-00.0.jsonl", "{}\n", "samples without"),
    ("olmes", "task-0-a-metrics.json", changed(OLMES, "metrics"), "'metrics' is missing"),
    ("olmes", "task-0-a-metrics.json", changed(OLMES, "model_config"), "'model_config' is missing"),
    ("olmes", "task-0-a-metrics.json", changed(OLMES, "metrics", to={"x": "y"}), "no number in 'metrics'"),
    ("olmes", "task-0-a-metrics.json", changed(OLMES, "task_config", "num_shots"), "number of few-shot examples"),
    ("olmes", "task-0-a-metrics.json", changed(OLMES, "num_instances", to=0), "whole number from 1"),
    ("olmes", "metrics.json", {"all_primary_scores": []}, "'tasks' is missing"),
    ("lighteval", "results_1.json", changed(LIGHT, "config_general"), "'config_general' is missing"),
    ("lighteval", "results_1.json", changed(LIGHT, "results", to={"all": {"acc": 1}}), "but 'all'"),
    ("lighteval", "results_1.json", changed(LIGHT, "results", "arc", to={"acc": 0.5}), "task|shots"),
    ("every_eval_ever", "a.json", changed(EVERY, "model_info"), "'model_info' is missing"),
    (
        "every_eval_ever",
        "a.json",
        changed(EVERY, "evaluation_results", 0, "score_details"),
        "'score_details' is missing",
    ),
    (
        "every_eval_ever",
        "a.json",
        changed(EVERY, "evaluation_results", 0, "score_details", "score", to="x"),
        "a number",
    ),
    (
        "every_eval_ever",
        "a.json",
        changed(EVERY, "evaluation_results", 0, "generation_config"),
        "`shots` of the import",
    ),
    ("table", "a.csv", "", "is empty"),
    ("table", "a.csv", "size,step,task,acc,rows\n", "no rows"),
    ("table", "a.csv", ROWS.replace("acc,rows", "score,rows"), "column 'acc' for value is missing"),
    ("table", "a.csv", ROWS.replace("0.6", ""), "row 2: column 'acc'"),
    ("table", "a.csv", ROWS.replace("0.6", "60"), "percent"),
    ("table", "a.csv", ROWS.replace("2000", "1000"), "occurs twice"),
    ("table", "a.csv", ROWS.replace("2000", "x"), "row 2: column 'step'"),
    ("table", "a.csv", ROWS.replace("2000", "2_000"), "row 2: column 'step': found '2_000', expected a number"),
    ("table", "a.csv", ROWS.replace("0.6", "٠.٦"), "row 2: column 'acc': found"),
    ("table", "a.csv", ROWS.replace("2000,arc_easy", "2000,"), "row 2: column 'task' is blank"),
    ("table", "a.parquet", "PAR1", "cannot be read as Parquet, perhaps cut short"),
]


@pytest.mark.parametrize(("reader", "name", "content", "said"), BAD, ids=[f"{b[0]}-{n}" for n, b in enumerate(BAD)])
def test_what_does_not_fit_is_one_line_with_the_file(
    reader: str, name: str, content: object, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(StudyError) as caught:
        adopt(tmp_path, reader)
    message = str(caught.value)
    assert message.startswith(str(path)) and said in message and "\n" not in message and len(message) < 700


def test_of_several_bad_files_the_first_is_named_and_the_rest_counted(tmp_path: Path) -> None:
    for name in ("a.json", "b.json", "c.json"):
        write(tmp_path, name, "{" if name < "c" else OLD)
    with pytest.raises(StudyError, match=r"a\.json: not JSON.*; 1 more files have errors \(`skip`"):
        adopt(tmp_path)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"files": ["../*.json"]}, "leaves the folder"),
        ({"files": ["*.txt"]}, "has no file that matches"),
        ({"tests": ["arc_hard"]}, "tests: no test matches 'arc_hard'"),
        ({"means": {"x": ["blimp_*"]}}, "means/x: no test matches"),
        ({"means": {"arc_easy": ["lambada"]}}, "have a test of this name"),
        ({"models": [{"model": "org/{family"}]}, "names in braces"),
    ],
)
def test_what_the_study_asks_for_is_checked(block: dict, said: str, tmp_path: Path) -> None:
    write(tmp_path, "a.json", OLD)
    with pytest.raises(StudyError) as caught:
        adopt(tmp_path, **block)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_score_that_is_no_finite_number_is_kept_without_a_value_and_told(tmp_path: Path) -> None:
    write(tmp_path, "a.json", changed(OLD, "results", "lambada", "ppl", to=NAN))
    found = adopt(tmp_path)
    assert score(found, "lambada", "ppl")["value"] is None
    assert "1 of its scores are not finite, the first ppl of lambada" in found.files[0]["evidence"]


# All of it in tables, and the released files themselves


def test_rows_fit_the_tables(tmp_path: Path) -> None:
    write(tmp_path, "a.json", OLD)
    found = adopt(tmp_path)
    tables.write(found.scores, pa.schema([*tables.KEYS, *tables.SCORES]), tmp_path / "part.parquet")
    gathered = tables.gather([tmp_path / "part.parquet"], grid.CELL_KEYS, tables.SCORES)
    assert len(gathered) == len(found.scores) and set(found.scores[0]) <= set(gathered.column_names)
    tables.write(found.files, tables.RELEASED, tmp_path / "files.parquet")
    assert tables.rows(tmp_path / "files.parquet")[0]["model"] == "org/m-70m@step1000"


@pytest.fixture(scope="module")
def pythia() -> tuple[Path, score_rows.ImportedResults]:
    """The released evaluations of Pythia by the committed study; they are not part of this repository."""
    folder = os.environ.get("TUNECAST_PYTHIA_EVALS")
    if not folder:
        pytest.skip("TUNECAST_PYTHIA_EVALS does not name a folder with the released files")
    study = config.yaml.safe_load(
        (Path(__file__).parents[2] / "studies/pythia-released/config.yaml").read_text("utf-8")
    )
    block = study["imports"]["pythia"] | {"path": folder}
    return Path(folder), score_rows.import_results(block, lm_eval, "lm_eval")


def test_every_released_file_is_read(pythia: tuple[Path, score_rows.ImportedResults]) -> None:
    folder, found = pythia
    names = {path.relative_to(folder).as_posix() for path in folder.glob("**/*.json")}
    assert len(names) == 384 and {row["file"] for row in found.files if row["model"] and row["shots"]} == names


def test_the_mislabelled_files_come_out_as_zero_shots(pythia: tuple[Path, score_rows.ImportedResults]) -> None:
    told = [row for row in pythia[1].files if row["remark"] == "mismatch"]
    assert len(told) == 15 and {row["shots"] for row in told} == {"0"}
    assert all("pythia-v0" in row["file"] and "five-shot" in row["file"] for row in told)


def test_twenty_numbers_equal_those_in_the_files(pythia: tuple[Path, score_rows.ImportedResults]) -> None:
    folder, found = pythia
    taken = {row["file"]: row["scores"] for row in found.files}
    paths = [path for path in sorted(folder.glob("pythia-v1/**/*.json")) if "1.4b-deduped" not in path.name]
    assert all(taken[path.relative_to(folder).as_posix()] for path in paths)
    for path in random.Random(0).sample(paths, 20):
        content = json.loads(path.read_text("utf-8"))
        test = random.Random(path.name).choice(sorted(content["results"]))
        metric = next(name for name in sorted(content["results"][test]) if not name.endswith("_stderr"))
        name = path.relative_to(folder).as_posix()
        [row] = [row for row in found.files if row["file"] == name]
        keys = {"family": row["family"], "step": row["step"], "shots": content["config"]["num_fewshot"]}
        assert score(found, test, metric, **keys)["value"] == content["results"][test][metric]


# What is made of them


def evidence(found: score_rows.ImportedResults) -> Evidence:
    scores = pa.Table.from_pylist(found.scores, schema=pa.schema([*tables.KEYS, *tables.SCORES]))
    items = pa.Table.from_pylist(found.items, schema=pa.schema([*tables.KEYS, *tables.ITEMS]))
    return Evidence(tables.frame(items), tables.frame(scores))


LONG = "size,step,task,metric,value,rows\n" + "".join(
    f"{size},{step},{task},{metric},{value},2000\n"
    for task, metric, values in (("arc_easy", "acc", (0.3, 0.5, 0.4)), ("wikitext", "bits_per_byte", (1.2, 0.9, 1.0)))
    for (size, step), value in zip((("70m", 1000), ("160m", 1000), ("160m", 2000)), values, strict=True)
)


def test_untouched_bases_alone_are_recommended_by_the_way_that_is_better(tmp_path: Path) -> None:
    """The base at .5 of 2,000 rows leads the next by .1, nine standard errors; of bits per byte the lowest is the best."""
    write(tmp_path, "a.csv", LONG)
    found = adopt(tmp_path, "table", columns=COLUMNS | {"metric": "metric", "value": "value"})
    how = Resampling(resamples=200, level=0.95, seed=0)
    asked = best_base.questions(evidence(found).levels, {}, how)
    assert [(question.name, question.tuned, question.better) for question in asked] == [
        ("arc_easy", False, "higher"),
        ("wikitext", False, "lower"),
    ]
    assert all(question.bases[question.top] == ("160m", 1000) for question in asked)
    analysis = pd.DataFrame(columns=["analysis", *tables.ANALYSIS.names])
    rows = list(recommendation.recommend(asked, {}, {}, analysis, 0.02, how))
    answer = next(row for row in rows if row["topic"] == "answer" and row["task"] == "arc_easy")
    assert answer["statement"].startswith(
        "arc_easy, 0-shot: of 3 untouched bases 160m at step 1000 has the highest acc"
    )
    assert (
        "probability to be the best on other test rows 1.00" in answer["statement"]
        and "tun" not in answer["statement"].split(":")[1]
    )
    assert {row["topic"] for row in rows} == {"answer", "base", "pretraining"}


def test_a_test_of_which_no_way_is_better_is_no_question(tmp_path: Path) -> None:
    write(
        tmp_path, "a.csv", LONG.replace("bits_per_byte", "pct_stereotype").replace("1.2", "0.2").replace("1.0,", "0.1,")
    )
    found = adopt(tmp_path, "table", columns=COLUMNS | {"metric": "metric", "value": "value"})
    asked = best_base.questions(evidence(found).levels, {}, Resampling(resamples=100, level=0.95, seed=0))
    assert [question.name for question in asked] == ["arc_easy"]


def test_the_audit_lists_files_named_wrongly_repeated_and_left_out(tmp_path: Path) -> None:
    again = json.loads(json.dumps(OLD))
    again["results"]["arc_easy"]["acc"] = 0.26
    write(tmp_path, "five-shot/m.json", OLD)
    write(tmp_path, "later/m.json", again)
    write(tmp_path, "other.json", "{}")
    found = adopt(tmp_path, skip=["other*"])
    files = tables.frame(pa.Table.from_pylist(found.files, schema=tables.RELEASED))
    empty = pd.DataFrame(columns=[*tables.KEYS.names, *tables.SCORES.names])
    material = inputs.AuditInputs(empty, pd.DataFrame(), [], [], [], {}, files=files)
    rows = list(released_files.check(material))
    assert sorted((row["severity"], row["evidence"].split(":")[0]) for row in rows) == [
        ("note", "1 file left out by `skip` of the import"),
        ("warning", "1 file with a name that contradicts the content; the content is used"),
        ("warning", "1 file with scores that are also in another file"),
    ]
    assert any("acc of arc_easy by 0.0100" in row["evidence"] for row in rows)


def test_imported_scores_below_chance_are_told_by_the_chance_that_they_state(tmp_path: Path) -> None:
    """.15 of 2,000 rows where four answers give .25: twelve standard errors below."""
    write(tmp_path, "a.csv", LONG.replace("0.3", "0.15"))
    found = adopt(tmp_path, "table", columns=COLUMNS | {"metric": "metric", "value": "value"})
    scores = evidence(found).reported
    material = inputs.AuditInputs(scores, pd.DataFrame(), [], [], [], {})
    [row] = scores_below_chance.check(material)
    assert (row["severity"], row["family"], row["test"], row["value"], row["limit"]) == (
        "warning",
        "70m",
        "arc_easy",
        0.15,
        0.25,
    )
    assert list(ambiguous_tests.check(material)) == []


def test_families_share_an_axis_of_tokens_where_all_are_known(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", LONG)
    found = adopt(tmp_path, "table", columns=COLUMNS | {"metric": "metric", "value": "value"})
    rows = score_rows.with_tokens(found.scores, {"70m": 2097152, "160m": 524288})
    scores = tables.frame(pa.Table.from_pylist(rows, schema=pa.schema([*tables.KEYS, *tables.SCORES])))
    own = token_axis.axis(scores, scores)
    assert (own.label, own.place("70m", 1000), own.place("160m", 2000)) == (
        "pre-training tokens",
        2097152000,
        1048576000,
    )
    assert token_axis.told(token_axis.seen(scores), "70m", 1000) == "step 1000 (2.1B tokens)"
    some = scores.assign(tokens=scores["tokens"].where(scores["family"] == "70m"))
    assert token_axis.axis(some, some).label == "pre-training step"
    assert token_axis.at({1000: 1e9, 3000: 5e9}, 2000) == 3e9 and token_axis.at({1000: 1e9}, 500) == 5e8
    assert token_axis.at({1000: 1e9, 3000: 5e9}, 4000) == 7e9 and token_axis.at({}, 5) is None


@pytest.mark.parametrize(
    ("family", "tokens"),
    [
        ({"tokens_per_step": 1000}, {10: 1e4, 20: 2e4}),
        ({"tokens": {10: 500, 20: 2500}}, {10: 500.0, 20: 2500.0}),
        ({"tokens": {20: 2000}}, {10: 1000.0, 20: 2000.0}),
        ({}, {}),
    ],
)
def test_a_family_says_how_many_tokens_its_steps_take(family: dict, tokens: dict, tmp_path: Path) -> None:
    for step in (10, 20):
        (tmp_path / f"step{step}").mkdir()
    block = {"source": "folder", "path": str(tmp_path)} | family
    study = config.validated({"families": {"mine": block}, "suites": {"s": {"tests": ["rte"]}}})
    assert token_axis.of_study(study).get("mine", {}) == tokens


def test_names_of_folders_and_revisions_tell_tokens_by_themselves(tmp_path: Path) -> None:
    (tmp_path / "step1000-tokens4B").mkdir()
    block = {"source": "folder", "path": str(tmp_path), "pattern": "step{step}-tokens*", "steps": "all"}
    assert token_axis.of_family("mine", block) == {1000: 4e9}
    rows = [{"family": "hub", "step": 1000, "value": 0.5}, {"family": "own", "step": 1000, "tokens": 7.0}]
    table_ = pa.Table.from_pylist(rows, schema=pa.schema([*tables.KEYS, *tables.SCORES]))
    pins = [{"path": "resources/pins/bases/family=hub/step=1000.json", "revision": "stage1-step1000-tokens4B"}]
    assert token_axis.with_tokens(table_, {"own": {1000: 9.0}}, pins)["tokens"].to_pylist() == [4e9, 7.0]


@pytest.mark.slow
def test_an_import_runs_through_the_workflow(tmp_path: Path) -> None:
    """From the files to the gathered scores, with tokens and the list of files; a file that is broken ends it in one line."""
    block = {
        "reader": "table",
        "path": ".",
        "columns": COLUMNS | {"metric": "metric", "value": "value"},
        "tokens_per_step": 5,
    }
    place = running.lay_out(tmp_path / "place", {"imports": {"mine": block}})
    write(tmp_path / "files", "a.csv", LONG)
    arguments = ["--config", f"released_root={tmp_path / 'files'}", "--", "results/scores.parquet"]
    ended = running.run(place, *arguments)
    assert ended.returncode == 0, ended.stderr
    scores = tables.read(place / "study" / "results" / "scores.parquet")
    assert set(zip(scores["step"], scores["tokens"], strict=True)) == {(1000, 5000.0), (2000, 10000.0)}
    assert (place / "study" / "results" / "imported" / "import=mine" / "files.parquet").is_file()
    write(tmp_path / "files", "a.csv", LONG.replace("0.5", "50"))
    ended = running.run(place, *arguments)
    assert ended.returncode != 0 and "found 50, expected a share from 0 to 1" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
