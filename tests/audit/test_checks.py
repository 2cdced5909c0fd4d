"""Checks: each planted flaw is found and a clean study passes, on tables by hand and on a real model's predictions."""

import dataclasses
import json
import random
import shutil
from itertools import product

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workflow import registry, task
from workflow.audit import checks, inputs
from workflow.audit.inputs import AuditInputs
from workflow.evaluation import prediction
from workflow.forecasting.cohorts import Cohort
from workflow.forecasting.results import Forecasting
from workflow.models import checkpoints as sources
from workflow.storage import checksums, tables
from workflow.study import grid
from workflow.task import Example
from workflow.tasks import mnli

LABELS = ("entailment", "neutral", "contradiction")


# Studies by hand


def score(value, error=0.01, **keys):
    """A score of an untouched base, or of a model tuned on `train`, in the columns of `tables.IMPORTED`."""
    tuned = {"format": "default", "recipe": "full"} if "train" in keys else {}
    named = {"family": "f", "step": 10, **grid.UNTOUCHED, **tuned, "suite": "s"}
    test = {"test": "mnli", "test_format": "default", "shots": 0, "metric": "accuracy"}
    return {**named, **test, "value": value, "error": error, "n": None, **keys}


def scores(rows):
    return tables.frame(pa.Table.from_pylist(list(rows), schema=tables.IMPORTED))


def analysis(rows):
    """Analyses as they are gathered."""
    schema = pa.schema([("analysis", pa.string()), *tables.ANALYSIS])
    return tables.frame(pa.Table.from_pylist(list(rows), schema=schema))


def material(rows=(), analysed=(), parts=(), manifests=(), prepared=(), groups=()):
    return AuditInputs(scores(rows), analysis(analysed), parts, manifests, prepared, dict(groups))


def suite(**settings):
    common = {"protocol": "sound", "precision": "fp32", "labels": "score", "tests": ["mnli"], "seed": 0}
    return common | {"batch_tokens": 4096, "new_tokens": 8} | settings


def cell(root, rows, settings=None, **keys):
    """Predictions of a cell, written where the workflow writes them."""
    named = {key: score(0, **keys)[key] for key in grid.CELL_KEYS}
    path = root / "predictions" / grid.path(named, grid.CELL_KEYS) / "part.parquet"
    tables.write(rows, tables.PREDICTIONS, path, suite_settings=settings or suite())
    return path


def predicted(guesses, gold, **columns):
    """Predictions of labels by their places, as the method `label` makes them."""
    common = {"test": "mnli", "test_format": "default", "shots": 0, "shots_used": 0, "shown": [], "truncated": False}
    common |= {"prompt_tokens": 20, "choices": list(LABELS), "candidate_tokens": [1, 1, 1]}
    return [
        {
            **common,
            "id": f"test/{number}",
            "output": LABELS[guess],
            "reference": LABELS[right],
            "gold": right,
            "logprobs": [-0.1 if place == guess else -3.0 - number / 7 for place in range(3)],
            **columns,
        }
        for number, (guess, right) in enumerate(zip(guesses, gold, strict=True))
    ]


def manifest(root, step, weights="a", size=100, path="nowhere"):
    """A base's manifest."""
    file = root / f"base{step}.json"
    files = {"model.safetensors": {"bytes": size, "sha256": weights}, "config.json": {"bytes": 1, "sha256": "c"}}
    file.write_text(json.dumps({"family": "f", "step": step, "path": str(path), "files": files}), encoding="utf-8")
    return file


def prepared(root, name, rows):
    """A task's prepared rows: (split, fields, answer), with the labels as choices where the answer is one."""
    path = root / "tasks" / f"{name}.parquet"
    table = [
        {
            "id": f"{split}/{number}",
            "split": split,
            "fields": fields,
            "choices": list(LABELS) if answer in LABELS else [],
            "answer": answer,
            "gold": LABELS.index(answer) if answer in LABELS else None,
        }
        for number, (split, fields, answer) in enumerate(rows)
    ]
    tables.write(table, tables.EXAMPLES, path)
    return path


def found(name, study):
    """What one check finds, each as (severity, evidence)."""
    rows = list(registry.module(checks, name).check(study))
    pa.Table.from_pylist([{"check": name, **row} for row in rows], schema=tables.AUDIT)  # each fits its columns
    assert all(set(row) < set(tables.AUDIT.names) for row in rows)
    return rows


def severities(rows):
    return [row["severity"] for row in rows]


# Weights in several files


def test_bases_that_share_a_part_of_their_weights_are_found(tmp_path):
    """Steps 1 and 2 have the first file of step 3; 4 and 5 are one and the same, 6 is itself."""
    parts = {1: "ab", 2: "ac", 3: "ad", 4: "ef", 5: "ef", 6: "gh"}
    manifests = []
    for step, hashes in parts.items():
        files = {f"model-{place}.safetensors": {"bytes": 9, "sha256": own} for place, own in enumerate(hashes)}
        manifests.append(tmp_path / f"base{step}.json")
        manifests[-1].write_text(json.dumps({"family": "f", "step": step, "path": "nowhere", "files": files}))
    rows = found("duplicate_models", material(manifests=manifests))
    assert [(row["severity"], row["value"]) for row in rows] == [("error", 2.0), ("warning", 3.0)]
    assert rows[1]["evidence"] == (
        "3 bases have the same model-0.safetensors, but other weight files that differ: step 1, step 2 and step 3 of f; one of "
        "them may contain a part of another"
    )


# By how many tokens; where prompt and answer part


def test_what_prompts_have_lost_is_told_in_tokens(tmp_path):
    rows = predicted([0] * 5, [0] * 5, shots=2, shots_used=2)
    lost = {0: 10, 1: 30, 2: 800}
    for number, tokens in lost.items():
        rows[number] |= {"cut_tokens": tokens, "truncated": number > 0, "shots_used": 1 if number == 0 else 2}
    notes = {row["evidence"] for row in found("cut_prompts", material(parts=[cell(tmp_path, rows)]))}
    assert notes == {
        "40.0% of 5 prompts lack the beginning of their input (30 to 800 tokens, median 415; longest prompt read: 20 "
        "tokens)",
        "20.0% of 5 prompts have fewer few-shot examples than configured, the first ones cut (10 tokens, median 10; longest "
        "prompt read: 20 tokens)",
    }


def test_rows_whose_tokens_span_prompt_and_answer_are_counted_where_others_scored_the_test(tmp_path):
    rows = [row | {"spanning": number < 2} for number, row in enumerate(predicted([0] * 8, [0] * 8))]
    own = cell(tmp_path / "a", rows)
    assert found("spanning_tokens", material(parts=[own])) == []
    others = [score(0.5, family="released")]
    [row] = found("spanning_tokens", material(rows=others, parts=[own]))
    assert row["severity"] == "warning" and row["value"] == 0.25
    assert row["evidence"].startswith(
        "in 2 of 8 rows a token spans the end of the prompt and the start of an answer; it is "
    )
    old = cell(tmp_path / "b", predicted([0] * 8, [0] * 8))
    assert found("spanning_tokens", material(rows=others, parts=[old])) == []


# Exact matches of nothing


def written(rows):
    """Predictions of answers: (output, answers that count)."""
    (row,) = predicted([0], [0], test="nq_open", logprobs=[], candidate_tokens=[])
    return [
        row | {"id": f"test/{number}", "output": output, "choices": answers, "reference": answers[0]}
        for number, (output, answers) in enumerate(rows)
    ]


def test_outputs_and_answers_without_a_word_are_counted(tmp_path):
    """By SQuAD's rule "", "." and "the" equal "A" and ")", "the" equals no "Beatles", and an answer "A B" is "b"."""
    rows = [("", ["A"]), ("the", [")", "Bob"]), ("\n.", ["Ann"]), ("", ["A B"]), ("Bob", ["Bob"]), ("a cat", ["the"])]
    [row] = found("empty_matches", material(parts=[cell(tmp_path, written(rows))]))
    assert row["severity"] == "warning" and row["value"] == pytest.approx(2 / 6) and row["n"] == 6
    assert row["evidence"] == (
        "2 of 6 outputs count as exact matches without a word, since the metric normalises answers such as 'A' and ')' to an "
        "empty text: rows test/0 and test/1 of untouched bases at step 10"
    )


def test_few_of_them_are_a_note_and_none_is_no_finding(tmp_path):
    rows = [("Ann", ["Ann"])] * 200
    assert found("empty_matches", material(parts=[cell(tmp_path / "a", written(rows))])) == []
    [row] = found("empty_matches", material(parts=[cell(tmp_path / "b", written([("", ["An"]), *rows]))]))
    assert row["severity"] == "note" and row["evidence"].startswith("1 of 201 outputs")
    labels = predicted([0, 1], [0, 1])
    assert found("empty_matches", material(parts=[cell(tmp_path / "c", labels)])) == []


# All checks


STEPS, TRAINS = (10, 20, 30), ("none", "mnli")


def clean_cell(root, step, train):
    """A model on 30 rows without and with a demonstration, wrong in every third, fourth or fifth row by its step."""
    gold = [0, 1, 2] * 10
    guesses = [(right + (number % (2 + step // 10) == 0)) % 3 for number, right in enumerate(gold)]
    own = -step - TRAINS.index(train)  # log-probabilities of its own
    rows = [{**row, "logprobs": [v + own for v in row["logprobs"]]} for row in predicted(guesses, gold)]
    shown = {"shots": 1, "shots_used": 1, "shown": ["train/30"], "prompt_tokens": 30}
    return cell(root, [*rows, *({**row, **shown} for row in rows)], step=step, **tuned_on(train))


def tuned_on(train):
    return {} if train == "none" else {"train": train}


def clean(root):
    """Three bases and their tuned models, tested with and without demonstrations; nothing is amiss."""
    own = [
        score(
            0.34 + step / 997 + (train != "none") * step / 100 + shots / 50,
            step=step,
            shots=shots,
            n=30,
            **tuned_on(train),
        )
        for step, train, shots in product(STEPS, TRAINS, (0, 1))
    ]
    parts = [clean_cell(root, step, train) for step, train in product(STEPS, TRAINS)]
    split = task.load("mnli").test
    rows = [(split, {"premise": f"p{n}", "hypothesis": "h"}, LABELS[n % 3]) for n in range(30)]
    rows += [("train", {"premise": f"q{n}", "hypothesis": "h"}, LABELS[n % 3]) for n in range(6)]
    (root / "model").mkdir()
    (root / "model/config.json").write_text('{"max_position_embeddings": 64}', encoding="utf-8")
    manifests = [manifest(root, step, weights=f"w{step}", path=root / "model") for step in STEPS]
    value = {"analysis": "performance_difference", "group": "g", "value": 0.1}
    return material(own, [value], parts, manifests, [prepared(root, "mnli", rows)], {"g": {"mnli": ["mnli"]}})


def test_a_clean_study_of_one_seed_is_warned_of_nothing_else(tmp_path):
    assert [row["check"] for row in inputs.findings(clean(tmp_path))] == ["single_seeds"]


def test_a_study_without_predictions_or_scores_has_no_findings():
    assert inputs.findings(material()) == []


def test_findings_name_their_check_and_are_rows_of_the_table(tmp_path):
    rows = inputs.findings(material([score(1.0, step=step, test="qqp") for step in (10, 20)]))
    assert [row["check"] for row in rows] == ["gold_labels"]
    tables.write(rows, tables.AUDIT, tmp_path / "audit.parquet")
    [row] = tables.rows(tmp_path / "audit.parquet")
    assert (row["family"], row["test"], row["step"], row["train"]) == ("f", "qqp", None, "none")


def test_every_check_says_in_a_line_what_is_looked_for():
    for name in registry.modules(checks):
        assert len(registry.module(checks, name).__doc__.splitlines()[0]) > 20, name


# Predictions of a real model, flawed


FORESTS = [
    "The cat can fly over the barn.",
    "The dog eats fish.",
    "The owl sings a song.",
    "The hen sleeps.",
    "A fox swims.",
]
LONG = "The trout swims in the river. " * 60


def example(premise, answer):
    fields = {"premise": premise, "hypothesis": "It sleeps in the barn."}
    return Example(fields, answer, LABELS, LABELS.index(answer))


@pytest.fixture(scope="module")
def flawed(checkpoints, tmp_path_factory):
    """A real study: one checkpoint under two steps, demonstrations from the test rows, one row too long for the context."""
    root = tmp_path_factory.mktemp("flawed")
    model, tokenizer, folder = checkpoints["olmo"]
    test = [(f"validation/{n}", example(text, LABELS[n % 3])) for n, text in enumerate([*FORESTS, LONG])]
    parts, manifests = [], []
    for step in (1, 2):
        shutil.copytree(folder, root / f"steps/step{step}")
        base = sources.locate("f", {"source": "folder"}, step, root / f"steps/step{step}")
        manifests.append(root / f"{step}.json")
        manifests[-1].write_text(json.dumps(base), encoding="utf-8")
        for name, protocol in (("asked", "published"), ("cut", "sound")):
            settings = suite(protocol=protocol, formats=["default"], shots=[2])
            tests = {"mnli": (task.load("mnli"), test[:2], test)}
            rows = list(prediction.predict(model, tokenizer, settings, tests))
            parts.append(cell(root, rows, settings=settings, step=step, suite=name))
    return material(parts=parts, manifests=manifests)


def test_demonstrations_among_the_scored_rows_are_found(flawed):
    """Published: the first two of six rows; sound: the two rows given as training rows are test rows, by their ids."""
    rows = found("demonstrations_scored", flawed)
    assert [(row["suite"], row["severity"], row["value"], row["n"]) for row in rows] == [
        ("asked", "warning", 2 / 6, 6),
        ("cut", "warning", 2 / 6, 6),
    ]
    assert "2 of 6 scored rows" in rows[0]["evidence"] and "validation/0 and validation/1" in rows[0]["evidence"]


def test_predictions_are_read_once_for_all_checks(flawed, monkeypatch):
    """Each check alone finds what it finds together with the others, which read each file of predictions once."""
    read, seen = tables.read, []
    monkeypatch.setattr(tables, "read", lambda path, *columns: seen.append(path) or read(path, *columns))
    alone = [
        {"check": name, **row}
        for name in registry.modules(checks)
        for row in inputs.findings_of(dataclasses.replace(flawed, _read={}), registry.module(checks, name))
    ]
    assert len(seen) > len(flawed.parts)
    seen.clear()
    assert inputs.findings(dataclasses.replace(flawed, _read={})) == alone
    assert sorted(path for path in seen if path in flawed.parts) == sorted(flawed.parts)


def test_tests_of_a_part_are_told_apart_in_any_order():
    table = pd.DataFrame({"test": list("aabba"), "test_format": "io", "shots": [0, 0, 0, 0, 1], "id": list("pqrst")})
    for rows, expected in ((table, ["pq", "rs", "t"]), (table.iloc[[0, 2, 1, 3, 4]], ["pq", "rs", "t"])):
        part = inputs.Part(rows)
        found = [(keys["test"], keys["shots"], "".join(part.array("id")[place])) for keys, place in part.tests()]
        assert found == [("a", 0, expected[0]), ("b", 0, expected[1]), ("a", 1, expected[2])]


def test_shown_are_the_demonstrations_that_were_left(flawed):
    """The long row has no room for its demonstrations; the others show both, in the order of the prompt."""
    shown = {
        len(own) for rows in flawed.predictions("shown") if rows.keys["suite"] == "cut" for own in rows.rows["shown"]
    }
    assert shown == {0, 2}
    [first, *_] = flawed.predictions("shown")
    assert [list(own) for own in first.rows["shown"]] == [["validation/0", "validation/1"]] * 6


def test_prompts_longer_than_the_context_and_cut_ones_are_found(flawed):
    """One row of six: too long for the published protocol, which cuts nothing; cut and without demonstrations in the other."""
    rows = found("cut_prompts", flawed)
    flaws = {(row["suite"], row["evidence"].split(" prompts ")[1].split(" (")[0]): row for row in rows}
    assert {name: row["value"] for name, row in flaws.items()} == {
        ("cut", "lack the beginning of their input"): 1 / 6,
        ("cut", "have fewer few-shot examples than configured, the first ones cut"): 1 / 6,
        ("asked", "exceed the model's context together with the answer, and are read whole"): 1 / 6,
    }
    assert severities(rows) == ["warning"] * 3


def test_a_duplicated_checkpoint_is_found_by_its_weights_and_by_its_predictions(flawed):
    rows = found("duplicate_models", flawed)
    assert severities(rows) == ["error"] * 3
    assert rows[0]["evidence"] == "2 bases have the same weights: step 1 and step 2 of f"
    assert {row.get("suite") for row in rows[1:]} == {"asked", "cut"}


# Demonstrations, prompts


def test_demonstrations_of_other_rows_are_no_flaw_and_unknown_ones_are_said_to_be(tmp_path):
    good = predicted([0, 1], [0, 1], shots=1, shown=["train/0"])
    assert found("demonstrations_scored", material(parts=[cell(tmp_path / "a", good)])) == []
    path = cell(tmp_path / "b", good)
    pq.write_table(pq.ParquetFile(path).read().drop_columns("shown"), path)
    checksums.place(path).unlink()
    [row] = found("demonstrations_scored", material(parts=[path]))
    assert row["severity"] == "note" and "is not known" in row["evidence"]


@pytest.mark.parametrize(("cut", "severity"), [(0, None), (1, "note"), (5, "note"), (6, "warning")])
def test_one_row_in_twenty_may_be_cut(tmp_path, cut, severity):
    rows = predicted([0] * 100, [0] * 100)
    rows = [{**row, "truncated": number < cut} for number, row in enumerate(rows)]
    study = material(parts=[cell(tmp_path, rows)])
    assert severities(found("cut_prompts", study)) == [severity] * (severity is not None)


def test_a_base_whose_context_is_not_at_hand_is_named(tmp_path):
    study = material(parts=[cell(tmp_path, predicted([0], [0]))], manifests=[manifest(tmp_path, 10)])
    [row] = found("cut_prompts", study)
    assert row["severity"] == "note" and "context length of f at step 10 is unknown" in row["evidence"]


# Gold labels, constant predictions


def inference(*answers):
    test = task.load("mnli").test
    return [
        (test, {"premise": f"Row {number}.", "hypothesis": "It is."}, answer) for number, answer in enumerate(answers)
    ]


def test_a_test_of_one_class_is_found(tmp_path):
    [row] = found("gold_labels", material(prepared=[prepared(tmp_path, "mnli", inference(*["neutral"] * 4))]))
    assert (row["severity"], row["test"], row["n"]) == ("error", "mnli", 4)
    assert found("gold_labels", material(prepared=[prepared(tmp_path, "mnli", inference(*LABELS))])) == []


def test_rows_without_gold_are_found(tmp_path):
    rows = inference(*LABELS, "unlabelled")
    [row] = found("gold_labels", material(prepared=[prepared(tmp_path, "mnli", rows)]))
    assert (row["severity"], row["value"]) == ("error", 0.25) and "/3" in row["evidence"]


def test_a_sample_of_one_class_is_found_even_if_the_test_has_more(tmp_path):
    tasks = [prepared(tmp_path, "mnli", inference(*LABELS))]
    [row] = found("gold_labels", material(parts=[cell(tmp_path, predicted([0, 1, 2], [1, 1, 1]))], prepared=tasks))
    assert (row["severity"], row["suite"]) == ("error", "s") and "'neutral'" in row["evidence"]


def test_imported_bases_that_solve_a_label_test_are_found():
    """Two bases at 1; one base, a test with answers of each row's own, and tuned models may be so good."""
    bases = [score(1.0, 0.0, step=step, test="qqp") for step in (10, 20)]
    [row] = found("gold_labels", material([*bases, score(0.5, step=10, test="qqp", train="paws")]))
    assert row["severity"] == "error" and "0.500" in row["evidence"]
    assert found("gold_labels", material(bases[:1])) == []
    assert found("gold_labels", material([score(1.0, step=step, test="arc_easy") for step in (10, 20)])) == []
    assert found("gold_labels", material([score(1.0, step=step, test="qqp", train="paws") for step in (10, 20)])) == []


def constants(tmp_path, gold, groups=(), **keys):
    parts = [cell(tmp_path, predicted([1] * len(gold), gold), **keys)]
    return found("constant_predictions", material(parts=parts, groups=groups))


def test_a_classifier_that_says_one_label_is_a_warning_at_chance_too(tmp_path):
    [row] = constants(tmp_path, [0, 1, 2] * 20)
    assert (row["severity"], row["value"], row["limit"]) == ("warning", 1.0, 0.99)
    assert row["evidence"] == (
        "mnli: 1 of 1 untouched bases predict one label in at least 99% of the rows (chance 0.333): "
        "'neutral' from 1 at step 10 (accuracy 0.333)"
    )


def test_a_constant_predictor_that_looks_skilled_is_a_warning(tmp_path):
    """58 of 100 rows neutral: .58 is (.58 - 1/3) / sqrt(2/9/100) = 5.2 standard errors from chance."""
    [row] = constants(tmp_path, [1] * 58 + [0, 2] * 21)
    assert row["severity"] == "warning" and "0.580" in row["evidence"]


def ranked(tmp_path, gold, groups=(), **keys):
    """Predictions of the first of two choices of each row's own."""
    rows = [
        {**row, "test": "piqa", "choices": ["a", "b"], "logprobs": [-1.0, -2.0]}
        for row in predicted([0] * len(gold), gold)
    ]
    return found("constant_predictions", material(parts=[cell(tmp_path, rows, **keys)], groups=groups))


def test_a_constant_place_among_choices_is_noted_at_chance_and_a_warning_where_it_misleads(tmp_path):
    groups = {"learned": {"paws": ["piqa"]}}
    assert severities(ranked(tmp_path / "a", [0, 1] * 50, groups)) == ["note"]
    assert severities(ranked(tmp_path / "b", [0] * 80 + [1] * 20, groups)) == ["warning"]  # .8: 6 standard errors
    assert severities(ranked(tmp_path / "c", [0, 1] * 50, groups, train="paws")) == ["warning"]


def test_answers_that_count_are_no_labels(tmp_path):
    """A test of free text whose rows have the same two answers, and a model that always writes the first."""
    row = {**predicted([0], [0])[0], "test": "trivia_qa", "choices": ["a", "an a"], "logprobs": [], "output": "a"}
    rows = [{**row, "id": str(number)} for number in range(100)]
    assert found("constant_predictions", material(parts=[cell(tmp_path, rows)])) == []


def test_models_tuned_on_the_test_are_told_apart_from_others(tmp_path):
    """So that the finding about a model tuned on MNLI names MNLI as its task, and a recommendation for MNLI carries it."""
    parts = [cell(tmp_path, predicted([1] * 30, [0, 1, 2] * 10), train=train) for train in ("mnli", "paws")]
    rows = found("constant_predictions", material(parts=parts))
    assert [(row["train"], row["severity"]) for row in rows] == [("mnli", "warning"), ("paws", "warning")]


# Seeds


def test_tunings_of_one_seed_are_warned_of_where_no_tuning_of_the_recipe_has_two():
    one = [score(0.5, train="mnli", seed=0, step=step) for step in (10, 20)]
    [row] = found("single_seeds", material(one))
    assert (row["severity"], row["recipe"], row["suite"], row["n"]) == ("warning", "full", "s", 2)
    assert found("single_seeds", material([*one, score(0.5, train="mnli", seed=1)])) == []
    assert found("single_seeds", material([score(0.5)])) == []


def test_a_second_label_in_one_row_of_fifty_is_no_constant(tmp_path):
    rows = predicted([1] * 49 + [0], [0, 1] * 25)
    assert found("constant_predictions", material(parts=[cell(tmp_path, rows)])) == []


def test_text_that_names_no_label_is_constant(tmp_path):
    """Nothing named in 30 rows is 0 where guessing gives a third: 3.9 standard errors."""
    rows = predicted([1] * 30, [0, 1, 2] * 10, logprobs=[], output="Well, ", candidate_tokens=[])
    [row] = found("constant_predictions", material(parts=[cell(tmp_path, rows)]))
    assert row["severity"] == "warning" and "no label from 1" in row["evidence"]


def test_imported_accuracies_of_constant_labels_meet():
    """Six within .0001, a hundredth of the error, and others an error or more apart."""
    same = [score(0.558 + step * 1e-6, 0.005, step=step, test="paws") for step in range(10, 70, 10)]
    other = [score(0.50 + 0.03 * place, 0.005, step=10 * place, test="paws", train="paws") for place in range(1, 6)]
    [row] = found("repeated_accuracies", material([*same, *other]))
    assert row["severity"] == "warning" and row["value"] == pytest.approx(6 / 11) and row["n"] == 11
    assert "6 within 0.5580 to 0.5581" in row["evidence"]


def test_imported_accuracies_that_differ_or_are_coarse_do_not_meet():
    """Steps of a third of an error; and accuracies of 100 rows, which are equal by rounding."""
    spread = [score(0.55 + step / 6000, 0.005, step=step, test="paws") for step in range(10, 90, 10)]
    coarse = [score(0.55, 0.0497, step=step, test="paws") for step in range(10, 90, 10)]
    assert found("repeated_accuracies", material(spread)) == []
    assert found("repeated_accuracies", material(coarse)) == []


def test_bases_far_below_chance_are_a_warning_and_tuned_models_a_note():
    """.2 is 13 errors below a third and less than three quarters of it, .3 is not; .325 is less than an error below."""
    study = material([score(0.2, step=10), score(0.2, step=10, train="paws")])
    assert sorted((row["severity"], row["train"]) for row in found("scores_below_chance", study)) == [
        ("note", "paws"),
        ("warning", "none"),
    ]
    assert severities(found("scores_below_chance", material([score(0.3)]))) == ["note"]
    assert found("scores_below_chance", material([score(0.325)])) == []


def test_few_rows_may_all_be_wrong():
    """None of six right is 1.7 standard errors of a guess below chance; none of sixty is 5.5."""
    assert found("scores_below_chance", material([score(0.0, 0.0, n=6)])) == []
    assert severities(found("scores_below_chance", material([score(0.0, 0.0, n=60)]))) == ["warning"]


def test_scores_of_exactly_0_and_1_are_found(tmp_path):
    text = {"test": "xsum", "metric": "rouge_l"}
    rows = [
        score(0.0, 0.0, **text),
        score(0.0, 0.0, train="mnli", **text),
        score(1.0, 0.0, test="boolq"),
        score(1.0, 0.0),
    ]
    assert [(row["test"], row["severity"]) for row in found("scores_at_limits", material(rows))] == [
        ("boolq", "warning"),
        ("xsum", "note"),
        ("xsum", "warning"),
    ]
    own = material([score(0.0, 0.0, **text)], parts=[cell(tmp_path, predicted([0], [0]))])
    assert severities(found("scores_at_limits", own)) == ["note"]


# Means and differences


def ratios(bases, tuned):
    """Bases and models tuned on mnli and tested on xsum, which is tuned on as well, at steps 10, 20 …"""
    text = {"test": "xsum", "metric": "rouge_l"}
    rows = [score(value, step=10 * place, **text) for place, value in enumerate(bases, start=1)]
    rows += [score(value, step=10 * place, train="mnli", **text) for place, value in enumerate(tuned, start=1)]
    return material([*rows, score(0.2, step=10, train="xsum", **text)])


def test_a_mean_ratio_that_one_cell_turns_round_is_found():
    """Ratios -.5, -.5, -.5 and +5: the mean is +.875 with the last and -.5 without it."""
    [row] = found("dominated_ratios", ratios([0.2, 0.2, 0.2, 0.02], [0.1, 0.1, 0.1, 0.12]))
    assert (row["step"], row["train"], row["test"]) == (40, "mnli", "xsum")
    assert row["value"] == pytest.approx(5) and row["n"] == 4
    assert "+87.5% over all steps and pairs (4 cells) and -50.0% without it" in row["evidence"]


def test_mean_ratios_that_many_cells_make_are_not():
    """Ratios -.5, -.6, -.4, -.2: without the last the mean is -.5 instead of -.425."""
    assert found("dominated_ratios", ratios([0.2] * 4, [0.1, 0.08, 0.12, 0.16])) == []


def test_ratios_within_labels_or_within_text_are_not_averaged():
    labels = {"test": "paws", "metric": "accuracy"}
    bases = [score(value, step=step, **labels) for step, value in ((10, 0.5), (20, 0.5), (30, 0.01))]
    tuned = [score(0.4, step=step, train="mnli", **labels) for step in (10, 20, 30)]
    assert found("dominated_ratios", material([*bases, *tuned, score(0.4, train="paws", **labels)])) == []


def neighbours(apart, late):
    """Four tests of a tuned model at two steps, each test's scores `apart` by as much."""
    tests = ("mnli", "rte", "gpt3_nli", "mnli_mismatched")
    rows = [score(0.6, step=100_000, train="mnli", test=test) for test in tests]
    rows += [score(0.6 + apart, step=late, train="mnli", test=test) for test in tests]
    return material([*rows, score(0.65, step=100_000)])


def test_differences_between_two_bases_of_one_step_are_the_noise_floor():
    """.1 apart where errors of .01 explain .8 * .0141 = .0113; mnli's own change of .05 is smaller than that."""
    [row] = found("training_noise", neighbours(0.1, 100_010))
    assert row["severity"] == "warning" and row["value"] == pytest.approx(0.1)
    assert row["limit"] == pytest.approx(2 * 0.0112838, rel=1e-4)
    assert "1 of 1 difference between tuned model and base" in row["evidence"]


def test_differences_that_rows_explain_and_bases_far_apart_are_no_noise():
    assert found("training_noise", neighbours(0.015, 100_010)) == []
    assert found("training_noise", neighbours(0.1, 101_000)) == []


def test_seeds_that_differ_more_than_rows_explain_are_noted():
    """Scores .5 and .7: a standard deviation of .141 where rows explain .01."""
    rows = [score(value, train="mnli", seed=seed) for seed, value in enumerate((0.5, 0.7))]
    [row] = found("training_noise", material(rows))
    assert row["severity"] == "note" and row["value"] == pytest.approx(0.141421, rel=1e-4)
    assert found("training_noise", material([{**row, "error": 0.1} for row in rows])) == []


def test_more_demonstrations_that_hurt_are_found():
    """A base that loses a tenth is noted; a tuned model that does, or a base that loses three quarters, is a warning."""
    text = {"test": "xsum", "metric": "rouge_l"}
    base = [score(0.20, step=10, **text), score(0.18, step=10, shots=4, error=0.001, **text)]
    assert found("harmful_demonstrations", material(base)) == []
    sure = [{**row, "error": 0.001} for row in base]
    assert severities(found("harmful_demonstrations", material(sure))) == ["note"]
    tuned = [row | {"train": "xsum", "recipe": "full"} for row in sure]
    assert severities(found("harmful_demonstrations", material(tuned))) == ["warning"]
    [row] = found("harmful_demonstrations", material([sure[0], {**sure[1], "value": 0.05}]))
    assert row["severity"] == "warning" and row["value"] == pytest.approx(0.75) and "fit the context" in row["evidence"]


# Cells


def test_gaps_side_runs_and_models_without_a_base_are_told_apart():
    """Of four steps: mnli at all, rte lacks one, paws has but one; a model tuned on mnli has no base with 4 shots."""
    rows = [score(0.4 + step / 100, step=step) for step in (1, 2, 3, 4)]
    rows += [score(0.4 + step / 100, step=step, test="rte") for step in (1, 2, 4)]
    rows += [score(0.6, step=1, test="paws")]
    gap, side, alone = found("missing_cells", material([*rows, score(0.7, step=1, shots=4, train="mnli")]))
    assert (gap["severity"], gap["value"], gap["n"]) == (
        "warning",
        0.25,
        4,
    ) and "rte (default, 0 shots) lacks step 3" in gap["evidence"]
    assert side["severity"] == "note" and "paws (default, 0 shots) lacks steps 2, 3 and 4" in side["evidence"]
    assert alone["severity"] == "warning" and "mnli to mnli (default, 4 shots) at step 1" in alone["evidence"]


def test_analyses_without_a_value_are_noted():
    empty = {"analysis": "ratio", "group": "g", "family": "f", "step": 20, "estimator": "mean"}
    [row] = found("missing_cells", material(analysed=[empty, {**empty, "step": 10, "value": 0.1}]))
    assert (row["severity"], row["step"], row["n"]) == ("note", 20, 2) and "1 of mean (g)" in row["evidence"]


def series(family, steps, tests=20, seed=0):
    """Accuracies of different models on tests of 100 rows, to two decimals, so that neighbours tie now and then."""
    generator = random.Random(f"{family} {seed}")
    accuracies = {(test, step): round(generator.gauss(0.5, 0.05), 2) for test in range(tests) for step in steps}
    return [score(v, 0.05, family=family, step=step, test=f"t{test}") for (test, step), v in accuracies.items()]


def test_ties_by_chance_are_no_double():
    """Three series of nine steps on twenty tests of 100 rows: every pair ties on some two tests, some on six."""
    rows = [row for family in ("a", "b", "c") for row in series(family, range(100, 1000, 100))]
    assert found("duplicate_models", material(rows)) == []


def test_one_model_under_two_names_is_found_among_many():
    rows = [row for family in ("a", "b") for row in series(family, range(100, 1000, 100))]
    again = [row | {"family": "c"} for row in series("a", range(100, 1000, 100)) if row["step"] in (300, 400)]
    other = [row for row in series("c", (500, 600))]
    [row] = found("duplicate_models", material([*rows, *again, *other]))
    assert (row["severity"], row["value"]) == ("error", 20.0) and row["limit"] < 4
    assert "step 300 of a and step 300 of c" in row["evidence"] and "step 400 of a and step 400 of c" in row["evidence"]
    assert "step 500" not in row["evidence"] and "20 of 20 scores" in row["evidence"]


def test_two_steps_of_one_run_with_the_same_scores_are_found_and_the_start_is_noted():
    """A warm-up's first update changes nothing: steps 0 and 1 are one model, and that is no error."""
    rows = series("a", (100, 200, 300))
    late = [row | {"step": 400} for row in rows if row["step"] == 300]
    start = [row | {"step": step} for row in series("a", (0,)) for step in (0, 1)]
    found_rows = found("duplicate_models", material([*rows, *late, *start]))
    assert sorted((row["severity"], "step 0" in row["evidence"]) for row in found_rows) == [
        ("error", False),
        ("note", True),
    ]


def test_a_few_tests_alike_are_a_warning_at_most():
    rows = [row for family in ("a", "b") for row in series(family, (100, 200), tests=5)]
    assert severities(found("duplicate_models", material([*rows, *(r | {"family": "c"} for r in rows[:1])]))) == []
    again = [row | {"family": "c"} for row in rows if (row["family"], row["step"]) == ("a", 100)]
    fine = [row | {"error": 0.005} for row in [*rows, *again]]
    assert severities(found("duplicate_models", material(fine))) in ([], ["warning"])


def test_models_that_agree_in_constant_labels_0_and_1_may_be_two():
    tests = ("mnli", "rte", "paws")
    rows = [score(0.5, step=step, test=test) for step, test in product((1, 2), tests)]
    rows += [
        score(float(place % 2), step=step, test=test)
        for step in (1, 2)
        for place, test in enumerate(("gsm", "boolq", "piqa"))
    ]
    assert found("duplicate_models", material(rows)) == []


def test_a_name_with_two_metrics_and_suites_that_disagree_are_found():
    """.99 and .51 with errors of .01 are 34 errors apart; .4 and .405 less than one; .4 and .4005 a twentieth."""
    rows = [score(0.3, test="sciq", metric="rouge_l"), score(0.9, step=20, test="sciq")]
    assert severities(found("ambiguous_tests", material(rows))) == ["warning"]
    [row] = found("ambiguous_tests", material([score(0.99, test="qqp"), score(0.51, test="qqp", suite="ranked")]))
    assert row["severity"] == "warning" and row["value"] == pytest.approx(0.48)
    assert found("ambiguous_tests", material([score(0.4), score(0.405, suite="t")])) == []
    assert severities(found("ambiguous_tests", material([score(0.4), score(0.4005, suite="t")]))) == ["note"]


# Rows, settings


def sentence(split, premise, answer="neutral"):
    return split, {"premise": premise, "hypothesis": "It sleeps."}, answer


def test_test_rows_among_the_training_rows_are_found_whatever_their_case_and_marks(tmp_path):
    split = task.load("mnli").test
    rows = [
        sentence("train", "A cat."),
        sentence("train", "A dog."),
        sentence(split, "a CAT"),
        sentence(split, "An owl."),
    ]
    tasks = [prepared(tmp_path, "mnli", rows)]
    [row] = found("training_overlap", material([score(0.5, train="mnli")], prepared=tasks))
    assert (row["severity"], row["train"], row["test"], row["value"], row["n"]) == ("warning", "mnli", "mnli", 0.5, 2)
    assert found("training_overlap", material([score(0.5)], prepared=tasks)) == []


def test_a_row_in_a_hundred_may_stand_in_training(tmp_path):
    split = task.load("mnli").test
    rows = [sentence("train", "Cat 0"), *(sentence(split, f"Cat {number}") for number in range(100))]
    tasks = [prepared(tmp_path, "mnli", rows)]
    assert severities(found("training_overlap", material([score(0.5, train="mnli")], prepared=tasks))) == ["note"]


@pytest.fixture
def mix(monkeypatch):
    """A mix of two tasks, `half`."""
    monkeypatch.setattr(registry.tasks, "mixes", {"half": {"mnli": 0.5, "rte": 0.5}})
    return "half"


def test_rows_that_two_tasks_of_a_mix_share_are_found(tmp_path, mix):
    """Two of the three rows of rte are rows of mnli as well, one of them with another answer."""
    tasks = [
        prepared(tmp_path, "mnli", [sentence("train", f"Cat {number}") for number in range(4)]),
        prepared(
            tmp_path, "rte", [sentence("train", "CAT 1"), sentence("train", "Cat 2", "yes"), sentence("train", "Dog")]
        ),
    ]
    [row] = found("mixed_duplicates", material([score(0.5, train=mix)], prepared=tasks))
    assert (row["severity"], row["train"], row["value"], row["n"]) == ("warning", "half", pytest.approx(2 / 3), 3)
    assert (
        "mnli and rte of the mix half have the same input in 2 of 3 training rows, with another answer in 1"
        in row["evidence"]
    )
    assert (
        found("mixed_duplicates", material([score(0.5, train="mnli"), score(0.5, train="rte")], prepared=tasks)) == []
    )


def test_test_rows_among_the_training_rows_of_a_task_of_a_mix_are_found(tmp_path, mix):
    rows = [sentence("train", "A cat."), sentence(task.load("mnli").test, "a CAT")]
    tasks = [prepared(tmp_path, "mnli", rows), prepared(tmp_path, "rte", [sentence("train", "A dog.")])]
    [row] = found("training_overlap", material([score(0.5, train=mix, test="mnli")], prepared=tasks))
    assert (row["train"], row["test"], row["value"]) == ("mnli", "mnli", 1.0)


def test_a_field_that_every_row_has_and_the_template_leaves_out_is_found(tmp_path):
    split = task.load("mnli").test
    rows = [
        (split, {"passage": "Long.", **fields}, answer) for split, fields, answer in [sentence(split, "A cat.")] * 2
    ]
    study = material([score(0.5, test="mnli", train="mnli")], prepared=[prepared(tmp_path, "mnli", rows)])
    [row] = found("fields_left_out", study)
    assert (row["severity"], row["test"], row["test_format"], row["n"]) == ("warning", "mnli", "default", 2)
    assert "leaves out what every row has: passage;" in row["evidence"]
    rows[0][1]["passage"] = " "  # a field that some rows lack, as the passages of SciQ
    assert found("fields_left_out", material([score(0.5)], prepared=[prepared(tmp_path, "mnli", rows)])) == []


def test_repeated_test_rows_are_found_with_how_many_contradict(tmp_path):
    split = task.load("mnli").test
    rows = [sentence(split, "A cat."), sentence(split, "A cat", "entailment"), sentence(split, "A dog.")]
    [row] = found("repeated_rows", material(prepared=[prepared(tmp_path, "mnli", rows)]))
    assert (row["severity"], row["value"]) == ("warning", 1 / 3)
    assert "1 of 3 test rows" in row["evidence"] and "1 of these inputs have different answers" in row["evidence"]
    other = [sentence(split, "A cat."), sentence("train", "A cat."), sentence(split, "A dog.")]
    assert found("repeated_rows", material(prepared=[prepared(tmp_path, "mnli", other)])) == []


def test_versions_precisions_and_sizes_that_differ_are_found(tmp_path):
    rows = predicted([0, 1], [0, 1])
    newer = cell(tmp_path, rows, train="mnli")
    versions = {**tables.recorded(newer)["versions"], "torch": "3"}
    facts = json.dumps({**tables.recorded(newer), "versions": versions})
    pq.write_table(pq.ParquetFile(newer).read().replace_schema_metadata({"tunecast": facts}), newer)
    checksums.place(newer).unlink()
    half = cell(tmp_path, rows, settings=suite(precision="bf16"), suite="half")
    manifests = [manifest(tmp_path, step, weights=str(step), size=size) for step, size in ((10, 100), (20, 200))]
    study = material(parts=[cell(tmp_path, rows), newer, half], manifests=manifests)
    versions, precision, sizes = found("mixed_precision", study)
    assert (versions["severity"], versions["suite"], versions["n"]) == ("warning", "s", 2) and "torch" in versions[
        "evidence"
    ]
    assert (precision["severity"], precision["test"]) == ("note", "mnli") and "bf16 in half" in precision["evidence"]
    assert (sizes["severity"], sizes["value"], sizes["n"]) == ("warning", 2, 2)


# Cohorts of the study's own bases


KSHOT = {"measure": "kshot", "suite": "s", "metric": "accuracy", "format": "default", "shots": 0}
ANSWERS = {"measure": "gold_answer", "tests": ["mnli"], "rows": "test", "limit": 6, "shots": 2, "draws": 1, "seed": 0}
TARGET = {"tests": ["mnli"], "recipe": "full", "suite": "s", "format": "default", "shots": 0}


def forecast_by(root, settings, target):
    """Two bases, scored on 10 rows of a test, and tuned: on all 20 in suite `s`, on the last 8 in suite `late`."""
    rows = predicted([0] * 20, [0] * 20)
    rows = [{**row, "id": f"{mnli.TASK.test}/{number}"} for number, row in enumerate(rows)]
    parts = [cell(root, rows[:10]), cell(root, rows, train="mnli"), cell(root, rows[12:], train="mnli", suite="late")]
    bases = pd.DataFrame({"base": ["f@10", "f@20"], "p": [0.1, 0.2], "t": [0.1, 0.2]})
    own = Cohort(bases, bases.astype(str), "base", [], ["p"], ["t"])
    forecasting = Forecasting("own", {"scored": {"t": TARGET | target}}, own, *[pd.DataFrame()] * 3, None)
    tests = [prepared(root, "mnli", [(mnli.TASK.test, {}, LABELS[0])] * 20)]
    study = material([score(0.5)], parts=parts, prepared=tests)
    return dataclasses.replace(study, forecasting=[forecasting], measures={"p": settings})


@pytest.mark.parametrize(
    ("settings", "target", "shared"),
    [
        (KSHOT, {}, 10),
        (KSHOT | {"tests": ["mnli"]}, {"suite": "late"}, 0),
        (KSHOT | {"tests": ["rte"]}, {}, 0),
        (KSHOT | {"shots": 1}, {}, 0),
        (ANSWERS, {}, 6),
        (ANSWERS | {"rows": "train"}, {}, 0),
        ({"measure": "clm"}, {}, 0),
    ],
)
def test_rows_that_indicator_and_target_share_are_counted(settings, target, shared, tmp_path):
    rows = found("shared_test_rows", forecast_by(tmp_path, settings, target))
    assert [(row["severity"], row["cohort"], row["value"]) for row in rows] == [("warning", "own", shared)] * bool(
        shared
    )
    if shared:
        assert f"indicator p and target t are scored on {shared} of the same test rows" in rows[0]["evidence"]


def test_rows_whose_answers_are_read_are_those_that_gold_answer_reads(tmp_path):
    """Its own measure leaves the demonstrations out, so rows that the target lacks are not counted."""
    ids = [f"{mnli.TASK.test}/{number}" for number in range(20)]
    shown = random.Random(0).sample(ids, 2)
    read = sorted(set(ids) - set(shown), key=ids.index)
    read = [read[number] for number in sorted(random.Random(0).sample(range(18), 6))]
    (row,) = found("shared_test_rows", forecast_by(tmp_path, ANSWERS, {"suite": "late"}))
    assert row["value"] == len(set(read) & set(ids[12:]))


# Sentences


MEASURE = {"measure": "clm", "corpus": "c", "per": "token", "transform": "inv_ppl"}


def measured(*bases, **settings):
    """A study whose bases, one step after the other, have an indicator with these facts and sums."""
    common = {"indicator": "ppl", "measure": "clm", "corpus": "c", "group": "g", "variant": "text", "documents": 9}
    common |= {"tokens": 90, "nll": 180.0, "manifest": "m", "tokenization": "t", "versions": "torch 2"}
    rows = [{"family": "f", "step": step, **common, **base} for step, base in enumerate(bases)]
    schema = pa.schema([("family", pa.string()), ("step", pa.int64()), *tables.INDICATORS])
    table = tables.frame(pa.Table.from_pylist(rows, schema=schema))
    return dataclasses.replace(material(), indicators=table, measures={"ppl": MEASURE | settings})


def incomparable(study):
    return [
        (found["severity"], found.get("step"), found["value"])
        for found in inputs.findings(study)
        if found["check"] == "incomparable_indicators"
    ]


def test_indicators_that_were_measured_alike_are_no_finding():
    assert incomparable(measured({}, {}, {})) == []


@pytest.mark.parametrize(
    ("facts", "severity"),
    [({"manifest": "n"}, "error"), ({"tokenization": "u"}, "error"), ({"versions": "torch 3"}, "warning")],
)
def test_a_base_that_was_measured_otherwise_is_found(facts, severity):
    assert incomparable(measured({}, {}, facts)) == [(severity, 2, 2.0)]


def test_other_tokens_do_not_matter_per_byte():
    assert incomparable(measured({}, {}, {"tokenization": "u"}, per="byte")) == []


def test_an_indicator_that_is_no_number_is_found():
    assert incomparable(measured({}, {"nll": float("nan")}, {})) == [("warning", 1, 1.0)]


def test_experts_that_adapters_leave_as_they_are_are_a_note(tmp_path):
    """A tenth of the layers' weights reached, eight tenths of experts: one note for family and recipe; none of dense models."""
    mixture, dense = {"layers": 100, "reached": 10, "experts": 80}, {"layers": 100, "reached": 99, "experts": 0}
    parts = []
    for step, reached in ((10, mixture), (20, mixture), (30, dense), (40, None)):
        train = {"train": "mnli", "recipe": "lora" if step < 30 else "other"}
        path = cell(tmp_path, predicted([0], [0]), step=step, **train)
        tables.write(predicted([0], [0]), tables.PREDICTIONS, path, suite_settings=suite(), adapters=reached)
        parts.append(path)
    [row] = found("experts_without_adapters", material(parts=parts))
    assert (row["severity"], row["family"], row["recipe"], row["value"], row["n"]) == ("note", "f", "lora", 0.1, 2)
    assert row["evidence"].startswith(
        "adapters reach 10.0% of the layers' weights; 80.0% are weights of experts without adapters"
    )


def test_lists_spans_and_counts_read_as_in_a_sentence():
    assert inputs.listed([3]) == "3"
    assert inputs.listed(["a", "b", "b", "c"]) == "a, b and c"
    assert inputs.listed(range(9), most=2) == "0, 1 and 7 more"
    assert inputs.span(pd.Series([0.1, 0.25])) == "0.100 to 0.250"
    assert inputs.span(pd.Series([0.1, 0.1])) == "0.100"
    assert (inputs.counted(1, "score"), inputs.counted(2, "score")) == ("1 score", "2 scores")
    assert inputs.models(["none", "b", "a"]) == "untouched bases and models tuned on a and b"
    assert inputs.at_steps([20, 10, 20]) == "steps 10 and 20"
    assert inputs.normalised("A  cat's\nnap, Ünïcode!") == "a cat s nap ünïcode"
