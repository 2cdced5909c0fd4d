"""Questions with several right answers: SQuAD's measures by hand, contexts found among passages, gold answers' likelihood."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from workflow import task
from workflow.data import corpora, prompts
from workflow.errors import StudyError
from workflow.evaluation import metrics, prediction
from workflow.planning import config_checks
from workflow.storage import tables
from workflow.study import grid

DATA = Path(os.environ.get("TUNECAST_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize(
    ("output", "right", "match", "f1"),
    [
        ("The Beatles.", ["Beatles"], 1, 1),
        ("the beatles\nQuestion: who", ["Beatles"], 1, 1),  # what follows the first line is not the answer
        ("John Lennon", ["Lennon", "Ringo Starr"], 0, 2 / 3),  # precision 1/2, recall 1
        ("Starr", ["Lennon", "Ringo Starr"], 0, 2 / 3),  # the best of the answers
        ("1,901", ["1901"], 1, 1),
        ("", ["Lennon"], 0, 0),
        ("the", ["a"], 1, 1),  # nothing is left of either
        ("a man and a man", ["man man"], 0, 4 / 5),  # man, and, man against man, man
    ],
)
def test_exact_match_and_f1_by_hand(output: str, right: list[str], match: float, f1: float) -> None:
    rows = pd.DataFrame({"output": [output], "choices": [right]})
    assert metrics.exact_match(rows)[0] == match
    assert metrics.answer_f1(rows)[0] == pytest.approx(f1)


def test_metrics_of_answers_are_those_of_their_method_alone() -> None:
    own = metrics.applicable("answer", ["output", "logprobs"])
    assert own == ["answer_f1", "answer_log_likelihood", "exact_match"] and metrics.PRIMARY["answer"] in own
    rows = pd.DataFrame({"logprobs": [[-6.0]], "candidate_tokens": [[3]]})
    assert metrics.answer_log_likelihood(rows).tolist() == [-2.0]


def test_answers_are_written_and_the_gold_one_s_likelihood_is_that_of_a_plain_loss(checkpoint) -> None:
    """Against one forward pass of prompt and answer through the model."""
    found = task.load("nq_open")
    rows = [
        (f"validation/{n}", task.answered(f"who has a {beast}", ["the fox", "fox"], "answer"))
        for n, beast in enumerate(("cat", "hen"))
    ]
    suite = {"protocol": "sound", "seed": 0, "labels": "score", "new_tokens": 6, "batch_tokens": 512}
    run = prediction.Evaluation(checkpoint.model, checkpoint.tokenizer, suite, lambda done, total: None)
    predicted = prediction.predict_test(run, found, [], rows, "default", 0)
    for row, (_, example) in zip(predicted, rows, strict=True):
        prompt = prompts.prompt(found, example.fields, "default")
        ids = checkpoint.tokenizer(prompt + " the fox", return_tensors="pt")["input_ids"]
        start = len(checkpoint.tokenizer(prompt)["input_ids"])
        with torch.inference_mode():
            scores = checkpoint.model(input_ids=ids).logits[0, start - 1 : -1].log_softmax(-1)
        expected = scores.gather(1, ids[0, start:, None]).sum().item()
        assert row["logprobs"] == [pytest.approx(expected, abs=1e-3)] and row["candidate_tokens"] == [
            ids.shape[1] - start
        ]
        assert row["choices"] == ["the fox", "fox"] and "\n" not in row["output"] and row["output_tokens"] <= 6


PASSAGES = ["Ann Lee met Bo in Rome.", "The moon is far.", "Cy was born in Bonn, where cats sleep."]


def folder(path: Path, texts: list[str]) -> Path:
    """A data root with NQ rows and a corpus of passages."""
    (path / "nq_open").mkdir(parents=True)
    rows = [{"question": "who did bo meet in rome", "answer": ["Ann Lee"]}, {"question": "zebra", "answer": ["no"]}]
    for split in ("train", "validation"):
        (path / "nq_open" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (path / "pool" / "wiki").mkdir(parents=True)
    (path / "pool" / "wiki" / "train.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return path


def test_a_context_is_the_passage_that_fits_the_question_best(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", PASSAGES)
    pool = [document.text for document in corpora.documents(corpora.files(root / "pool", None))]
    rows = list(task.prepared("nq_open_context", str(root), None, pool))
    assert [row["fields"]["context"] for row in rows] == [PASSAGES[0], ""] * 2
    tables.write(rows, tables.EXAMPLES, tmp_path / "task.parquet")
    read, train, _ = task.examples("nq_open_context", tmp_path / "task.parquet")
    shown = prompts.prompt(read, train[0][1].fields, "default")
    assert shown == f"Context: {PASSAGES[0]}\nQuestion: who did bo meet in rome\nAnswer:"
    assert task.domain("nq_open_context") == "nq_open"


def test_contexts_need_passages_in_the_config(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", PASSAGES)
    config = {
        "families": {"tiny": {"source": "trained", "pretraining": {"corpus": "miniworld", "save": [0]}}},
        "suites": {"rag": {"tests": ["nq_open_context"]}},
        "data_root": str(root),
    }
    with pytest.raises(
        StudyError, match=r"config.yaml: passages: missing; expected the text to retrieve contexts of 'nq_open_co"
    ):
        config_checks.read(config)
    for corpus in ("miniworld", "hub:../../data"):
        with pytest.raises(
            StudyError, match=f"config.yaml: passages/corpus: '{corpus}' is not allowed; allowed: a folder"
        ):
            config_checks.read(config | {"passages": {"corpus": corpus}})
    study = config_checks.read(config | {"passages": {"corpus": "pool"}})
    assert grid.passage_files(study, "nq_open_context") == [str(root / "pool" / "wiki" / "train.jsonl")]
    assert grid.passage_files(study, "nq_open") == []


def test_real_contexts_hold_more_answers_than_passages_drawn_at_random() -> None:
    """2WikiMultihopQA's questions among passages of its own articles."""
    pool = DATA / "pretraining" / "wikipedia_passages"
    if not pool.is_dir() or not (DATA / "two_wiki_multihop_qa").is_dir():
        pytest.skip(f"no folder {pool}: set TUNECAST_DATA to the folder of dataset samples")
    from workflow.data.retrieval import Index

    texts = [document.text for document in corpora.documents([pool / "train.jsonl", pool / "validation.jsonl"])]
    index = Index(texts)
    name = "two_wiki_multihop_qa"
    rows = list(
        task.canonical(task.load(name), "validation", task.read_folder(DATA, task.load(name), name, "validation"))
    )
    asked = [row for row in rows if row["answer"] not in ("yes", "no")][:150]
    found = np.mean([row["answer"] in texts[index.best(row["fields"]["question"])[0]] for row in asked])
    by_chance = np.mean([np.mean([row["answer"] in text for text in texts]) for row in asked])
    assert found > 0.02 > 20 * by_chance  # most articles of the questions are not in the sample
