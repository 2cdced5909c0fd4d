"""Tasks of lm-evaluation-harness: the same task files, rows and model give the harness's own prompts, scores and texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import lm_eval
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from workflow import registry, task
from workflow.data import lm_eval_tasks
from workflow.evaluation import metrics, prediction
from workflow.statistics import Resampling
from workflow.storage import tables

NAMES = ("Ann", "Bo", "Cy", "Dora")
BEASTS = ("cat", "dog", "fox", "hen", "owl", "trout")
ACTS = ("can fly", "eats fish", "sleeps in the barn", "swims in the river", "sings a song")


def questions(split: str, count: int) -> list[dict[str, Any]]:
    """Rows with a question, options in several forms, the right one in several forms, and a short text."""
    rows = []
    for number in range(count):
        beast = [BEASTS[(number + len(split) + place) % len(BEASTS)] for place in range(4)]
        gold = (number * 7 + len(split)) % 4
        rows.append(
            {
                "question": f"What {ACTS[number % len(ACTS)].split()[0]} with {NAMES[number % 4]}? ",
                "support": f"  {NAMES[(number + 1) % 4]} has a {beast[gold]}. Ça va, number {number}?",
                "options": {"text": [f"the {name}" for name in beast], "label": ["A", "B", "C", "D"]},
                "choices": [f"a {name} of 日本" if number % 3 == 0 else f"a {name}" for name in beast],
                "answer": gold,
                "key": "ABCD"[gold],
                "wrong1": beast[(gold + 1) % 4],
                "wrong2": beast[(gold + 2) % 4],
                "right": beast[gold],
                "truth": number % 2 == 0,
                "aliases": [beast[gold], "a", "e", f"The {beast[gold]}!"],
                "solution": f"There are {number} and 2.\n#### {number + 2}",
                "first": f"{NAMES[number % 4]} saw the {beast[0]}",
                "second": f"{NAMES[number % 4]} saw the {beast[1]} in the river",
            }
        )
    return rows


SPLITS = {"train": 9, "validation": 7, "test": 8, "dev": 4}
PLAIN = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {split: f"rows/{split}.jsonl" for split in SPLITS}},
    "training_split": "train",
    "validation_split": "validation",
    "test_split": "test",
}
BOTH = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}, {"metric": "acc_norm"}]
ASKED = {
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question.strip()}}\nAnswer:",
    "doc_to_choice": "{{options.text}}",
    "doc_to_target": "{{options.label.index(key)}}",
    "metric_list": BOTH,
}
WRITTEN = {
    "output_type": "generate_until",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{solution}}",
    "generation_kwargs": {"until": ["Question:", "\n\n"], "max_gen_toks": 12, "do_sample": False, "temperature": 0.0},
}
EXACT = [{"metric": "exact_match", "ignore_case": True, "regexes_to_ignore": [",", "(?s).*#### ", "\\.$"]}]
NUMBERS = [
    {
        "name": "strict-match",
        "filter": [{"function": "regex", "regex_pattern": "#### (\\-?[0-9\\.\\,]+)"}, {"function": "take_first"}],
    },
    {
        "name": "flexible-extract",
        "filter": [
            {"function": "regex", "group_select": -1, "regex_pattern": "(-?[$0-9.,]{2,})|([0-9a-z]+)"},
            {"function": "take_first"},
        ],
    },
]
FILES: dict[str, dict[str, Any]] = {
    "asked.yaml": {"task": "asked", "tag": "open", **PLAIN, **ASKED, "num_fewshot": 2},
    "column.yaml": {"task": "column", **PLAIN, **ASKED, "doc_to_text": "support", "doc_to_choice": "choices",
                    "doc_to_target": "answer", "fewshot_config": {"sampler": "first_n"}, "num_fewshot": 3},
    "last.yaml": {"task": "last", "tag": ["open"], **PLAIN, **ASKED, "doc_to_target": 2,
                  "doc_to_choice": "{{[wrong1, wrong2, right]}}"},
    "sub/_template_yaml": {**PLAIN, "output_type": "multiple_choice", "fewshot_split": "dev", "training_split": None,
                           "fewshot_config": {"sampler": "first_n"}, "doc_to_choice": ["A", "B", "C", "D"],
                           "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\n"
                                          "D. {{choices[3]}}\nAnswer:",
                           "doc_to_target": "answer", "metric_list": [{"metric": "acc", "aggregation": "mean"}]},
    "sub/quiz_beasts.yaml": {"task": "quiz_beasts", "include": "_template_yaml", "tag": "quiz_tag", "num_fewshot": 2,
                             "description": "The following are questions (with answers) about beasts.\n\n"},
    "sub/quiz_names.yaml": {"task": "quiz_names", "include": "_template_yaml", "tag": "quiz_tag",
                            "description": "About {{right}}s."},
    "sub/quiz.yaml": {"group": "quiz", "task": ["quiz_tag"],
                      "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]},
    "truth.yaml": {"task": "truth", **PLAIN, **ASKED, "doc_to_text": "{{support}}\nIs it true?", "doc_to_target": "truth",
                   "doc_to_choice": {0: "no", 1: "yes"}, "metric_list": None, "num_fewshot": 1},
    "key.yaml": {"task": "key", **PLAIN, **ASKED, "doc_to_target": "key", "doc_to_choice": ["A", "B", "C", "D"]},
    "glued.yaml": {"task": "glued", **PLAIN, **ASKED, "doc_to_text": "{{question}}", "target_delimiter": "",
                   "fewshot_delimiter": " | ", "num_fewshot": 2},
    "lines.yaml": {"task": "lines", **PLAIN, **ASKED, "doc_to_text": "{{question}}  ", "target_delimiter": "\n",
                   "num_fewshot": 1},
    "inputs.yaml": {"task": "inputs", **PLAIN, **ASKED, "doc_to_text": "{{answer % 2}}",
                    "doc_to_choice": "{{[first, second]}}", "doc_to_target": "and it sleeps", "num_fewshot": 1},
    "information.yaml": {"task": "information", **PLAIN, **ASKED, "doc_to_choice": "choices",
                         "metric_list": [{"metric": "acc_mutual_info"}, {"metric": "acc_bytes"}]},
    "unsplit.yaml": {"task": "unsplit", **PLAIN, **ASKED, "test_split": None, "num_fewshot": 3},
    "itself.yaml": {"task": "itself", **PLAIN, **ASKED, "fewshot_split": "test", "num_fewshot": 5},
    "first_itself.yaml": {"task": "first_itself", **PLAIN, **ASKED, "num_fewshot": 3,
                          "fewshot_config": {"sampler": "first_n", "split": "test"}},
    "begun.yaml": {"task": "begun", **PLAIN, **ASKED, "gen_prefix": "It is", "num_fewshot": 1},
    "alone.yaml": {"task": "alone", **PLAIN, **ASKED, "doc_to_text": "", "doc_to_choice": "choices"},
    "long.yaml": {"task": "long", **PLAIN, **ASKED, "doc_to_text": "{{support * 12}}\n{{question}}", "num_fewshot": 2},
    "shown.yaml": {"task": "shown", **PLAIN, **ASKED, "num_fewshot": 2,
                   "fewshot_config": {"doc_to_text": "Q: {{question}}", "target_delimiter": " -> ", "split": "train",
                                      "doc_to_target": "{{key}}"}},
    "table.yaml": {"task": "table", **PLAIN, **ASKED, "doc_to_text": "{{question}}", "doc_to_target": "answer",
                   "doc_to_choice": ["A", "B", "C", "D"], "num_fewshot": 1,
                   "dataset_path": "csv", "dataset_kwargs": {"data_files": {s: f"rows/{s}.csv" for s in SPLITS}}},
    "columns.yaml": {"task": "columns", **PLAIN, **ASKED, "dataset_path": "parquet",
                     "dataset_kwargs": {"data_files": {s: f"rows/{s}.parquet" for s in SPLITS}}},
    "sums.yaml": {"task": "sums", **PLAIN, **WRITTEN, "num_fewshot": 2, "metric_list": EXACT, "filter_list": NUMBERS,
                  "repeats": 1},
    "sums_cot.yaml": {"task": "sums_cot", **PLAIN, **WRITTEN, "metric_list": EXACT, "filter_list": NUMBERS, "num_fewshot": 2,
                      "doc_to_text": "Q: {{question}}\n\nA:",
                      "doc_to_target": "{{solution.split('####')[-1].strip() if solution is defined else target}}",
                      "fewshot_config": {"sampler": "first_n", "samples": [
                          {"question": "Ann has 2 hens?", "target": "The answer is 2."},
                          {"question": "Bo has 3 hens?", "target": "The answer is 3."}]}},
    "trivia.yaml": {"task": "trivia", **PLAIN, **WRITTEN, "doc_to_target": "{{aliases}}", "num_fewshot": 1,
                    "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 6},
                    "filter_list": [{"name": "remove_whitespace", "filter": [
                        {"function": "remove_whitespace"}, {"function": "regex", "regex_pattern": "[a-z]"},
                        {"function": "take_first"}]}],
                    "metric_list": [{"metric": "exact_match", "ignore_case": True, "ignore_punctuation": True}]},
    "shouted.yaml": {"task": "shouted", **PLAIN, **WRITTEN, "doc_to_target": "{{answer}}", "doc_to_choice": ["A", "E", "I", "O"],
                     "generation_kwargs": {"max_gen_toks": 5}, "gen_prefix": "the", "num_fewshot": 2,
                     "filter_list": [{"name": "shout", "filter": [
                         {"function": "uppercase"}, {"function": "regex", "regex_pattern": "[AEIO]", "fallback": "?"},
                         {"function": "take_first"}]}]},
}  # fmt: skip
TASKS = [content["task"] for content in FILES.values() if isinstance(content.get("task"), str)]


class Compared(NamedTuple):
    """What the harness says of all tasks, and this package's predictions and scores."""

    results: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]
    groups: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]
    scores: dict[tuple[str, str], float]


def written(folder: Path) -> None:
    """All task files, and rows as JSON Lines, CSV and Parquet."""
    for name, content in FILES.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    (folder / "rows").mkdir()
    for split, count in SPLITS.items():
        rows, path = questions(split, count), folder / "rows" / split
        path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
        plain = [{key: row[key] for key in ("question", "answer", "truth", "right")} for row in rows]
        pd.DataFrame(plain).to_csv(path.with_suffix(".csv"), index=False)


def declare() -> None:
    """All tasks of the files in the working directory become known."""
    settings: Any = {"include_path": "files", "tasks": [*TASKS, "quiz"], "fewshot_seed": 1234}
    blocks, groups, lines = lm_eval_tasks.blocks(settings, None)
    assert (list(blocks), groups, lines) == (TASKS, {"quiz": ["quiz_beasts", "quiz_names"]}, [])
    registry.declare({"tasks": blocks})


@pytest.fixture(scope="module", params=["gpt_neox", "llama"])
def compared(
    request: pytest.FixtureRequest, checkpoints: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compared]:
    """The harness and this package on all tasks."""
    folder, checkpoint = tmp_path_factory.mktemp("harness"), checkpoints[request.param]
    written(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "cache"))
        declare()
        rows: dict[str, list[dict[str, Any]]] = {}
        for name in TASKS:
            path = folder / f"{name}.parquet"
            tables.write(list(task.prepared(name, None)), tables.EXAMPLES, path, task=name)
            read = task.load(name)
            assert read.lm_eval is not None
            suite: Any = {"protocol": "sound", "labels": "score", "seed": 0, "new_tokens": 3, "batch_tokens": 8192,
                          "tests": [name], "formats": ["lm_eval"], "shots": [read.lm_eval.shots or 0]}  # fmt: skip
            rows[name] = list(prediction.predict(*checkpoint[:2], suite, {name: task.tested(name, path)}))
        frame = tables.frame(
            pa.Table.from_pylist([row for own in rows.values() for row in own], schema=tables.PREDICTIONS)
        )
        scores, _ = metrics.scored(frame, suite, Resampling(resamples=100, level=0.95, seed=0))
        theirs = lm_eval.simple_evaluate(
            model=HFLM(pretrained=checkpoint.model, tokenizer=checkpoint.tokenizer, batch_size=1, device="cpu"),
            tasks=[*(name for name in TASKS if not name.startswith("quiz")), "quiz"],
            task_manager=TaskManager(include_path=str(folder / "files"), include_defaults=False),
            bootstrap_iters=0,
        )
        values = {(row["test"], row["metric"]): row["value"] for row in scores}
        yield Compared(theirs["results"], theirs["samples"], theirs["groups"], rows, values)
    registry.declare({})


def of_filter(samples: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The harness's rows of one filter, in the order of the documents."""
    return sorted((row for row in samples if row["filter"] == name), key=lambda row: row["doc_id"])


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_contexts_log_likelihoods_and_texts_equal_the_harness(compared: Compared, name: str) -> None:
    samples = of_filter(compared.samples[name], compared.samples[name][0]["filter"])
    assert len(samples) == len(compared.rows[name]) > 3
    for row, sample in zip(compared.rows[name], samples, strict=True):
        if isinstance(sample["resps"][0][0], str):
            assert row["output"] == sample["resps"][0][0]
            continue
        expected = [float(response[0][0]) for response in sample["resps"]]
        assert [*row["logprobs"], *row["priors"]] == pytest.approx(expected, abs=1e-4, rel=0)


@pytest.mark.slow
def test_scores_equal_the_harness(compared: Compared) -> None:
    expected = {
        (name, key.removesuffix(",none")): value
        for name in TASKS
        for key, value in compared.results[name].items()
        if "," in key and "_stderr" not in key
    }
    found = {key: value for key, value in compared.scores.items() if key[1] != "chance"}
    assert len(expected) >= 30
    assert found == pytest.approx(expected, abs=1e-12)
    assert len({round(value, 6) for value in expected.values()}) > 4


@pytest.mark.slow
def test_a_group_is_its_tasks(compared: Compared) -> None:
    weights = {name: len(compared.rows[name]) for name in ("quiz_beasts", "quiz_names")}
    mean = sum(compared.scores[name, "acc"] * number for name, number in weights.items()) / sum(weights.values())
    assert compared.groups["quiz"]["acc,none"] == pytest.approx(mean, abs=1e-12)
