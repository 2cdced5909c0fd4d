"""What a study is estimated to cost, against sums by hand."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from workflow import task
from workflow.errors import StudyError
from workflow.planning import config_checks, costs, resources
from workflow.planning.costs import TaskSize
from workflow.study import grid

STUDY = {
    "families": {"big": {"source": "hub", "repo": "lab/big", "steps": [1000, 2000]}},
    "recipes": {"sft": {"examples": 100, "epochs": 3, "max_tokens": 50}},
    "models": [{"train": ["mnli"], "recipes": ["sft"], "seeds": [0, 1]}],
    "suites": {"s": {"tests": ["mnli", "xsum"], "shots": [0, 2], "limit": 10, "new_tokens": 20}},
    "estimate": {"parameters": {"big": 1e9}, "flops": 1e12, "written": 100, "context": 1000},
}
SIZES = {"mnli": TaskSize(1000, 500, 40.0, 2.0, 3.0), "xsum": TaskSize(0, 5, 450.0, 25.0, 1.0)}


def table(study=STUDY, sizes=SIZES):
    return costs.estimate(config_checks.read(study), sizes).set_index("rule")


def test_jobs_are_those_of_the_grid():
    """Two bases, four tunings, six models on one suite; two tasks."""
    assert table()["jobs"].to_dict() == {"fetch": 2, "prepare": 2, "tune": 4, "predict": 6, "score": 6, "all": 20}


def test_tuning_by_hand():
    """3 epochs x 100 rows x 42 tokens x 6e9 operations = 7.56e13 at 1e12 a second, and 30 s to start: 105.6 s each."""
    assert table().loc["tune", "gpu_hours"] == pytest.approx(4 * 105.6 / 3600)


def test_prediction_by_hand():
    """Rows of mnli read 42 and 126 tokens, of xsum 450 and 1000 (cut at the context), and write 20 tokens each.

    10 x 168 + 5 x 1450 = 8930 tokens x 2e9 = 17.86 s; 5 x 20 x 2 tokens at 100 a second = 2 s; 30 s to start.
    """
    assert table().loc["predict", "gpu_hours"] == pytest.approx(6 * (17.86 + 2 + 30) / 3600)


def test_a_start_holds_all_gpus_of_a_job():
    """Of a tuning on two GPUs and a prediction on three; what they compute is divided among them, which costs the same."""
    recipes, suites = {"sft": STUDY["recipes"]["sft"] | {"gpus": 2}}, {"s": STUDY["suites"]["s"] | {"gpus": 3}}
    found = table(STUDY | {"recipes": recipes, "suites": suites})["gpu_hours"]
    assert found["tune"] == pytest.approx(4 * (75.6 + 2 * 30) / 3600)
    assert found["predict"] == pytest.approx(6 * (17.86 + 2 + 3 * 30) / 3600)


def test_weights_take_four_bytes_a_parameter():
    found = table()["gigabytes"]
    assert (found["fetch"], found["tune"]) == (8.0, 16.0)
    assert found["all"] == pytest.approx(24 + 6 * 2 * (10 + 5) * 400 / 1e9)


def test_weights_that_do_not_stay_take_nothing():
    found = table(STUDY | {"keep_weights": False})["gigabytes"]
    assert (found["fetch"], found["tune"]) == (8.0, 0.0)


def test_searched_rates_cost_their_trials():
    searched = {"learning_rate": [1e-5, 1e-6], "search": {"validation": 50}}
    study = STUDY | {"recipes": {"sft": STUDY["recipes"]["sft"] | searched}}
    found = table(study)
    assert found.loc["try_rate", "jobs"] == 2 and found.loc["choose", "jobs"] == 1
    assert found.loc["try_rate", "gpu_hours"] == pytest.approx(2 * 105.6 / 3600)


def test_a_family_without_stated_parameters_is_refused():
    with pytest.raises(StudyError, match="estimate/parameters: 'big' is missing"):
        table({key: value for key, value in STUDY.items() if key != "estimate"})


def test_parameters_of_a_local_folder_are_counted_in_its_headers(tmp_path):
    for step, size in ((10, 3), (20, 5)):
        (tmp_path / f"step{step}").mkdir()
        save_file({"a": np.zeros((size, 4)), "b": np.zeros(7)}, tmp_path / f"step{step}/model.safetensors")
        for name in ("config.json", "tokenizer.json"):
            (tmp_path / f"step{step}" / name).write_text("{}")
    family = {"source": "folder", "path": str(tmp_path), "pattern": "step{step}"}
    study = config_checks.read(STUDY | {"families": {"big": family}, "estimate": {"flops": 1e12}})
    assert costs.parameters_of(study, "big") == 5 * 4 + 7
    (tmp_path / "step20/model.safetensors").write_bytes(b"\x00" * 4)
    costs._header_sum.cache_clear()
    with pytest.raises(StudyError, match="estimate/parameters: 'big' is missing"):
        costs.parameters_of(study, "big")


def test_a_size_counts_the_hub_s_rows_and_measures_the_prepared_ones():
    """The prompt `### Input_1: aa\\n ### Input_2: bbbb\\n ### Inference:` has 49 bytes."""
    row = task.Example({"premise": "aa", "hypothesis": "bbbb"}, "neutral", ("entailment", "neutral"), 1)
    found = costs.size(task.load("mnli"), [("a", row)], [("b", row)])
    assert (found.train, found.test) == (392702, 9815)
    assert found.prompt == pytest.approx(len("### Input_1: aa\n ### Input_2: bbbb\n ### Inference:") / 4.2)
    assert (found.answer, found.choices) == (pytest.approx(7 / 4.2), 2)


def test_a_family_that_is_trained_here_needs_no_statement():
    """300 x 8 embeddings, and two layers of 4 x 64 + 3 x 8 x 16 weights: 3,680 parameters, four bytes each."""
    shape = {"vocabulary": 300, "hidden": 8, "intermediate": 16, "layers": 2, "heads": 2}
    small = {"source": "trained", "pretraining": {"corpus": "miniworld", "save": [0], **shape}}
    study = {key: value for key, value in STUDY.items() if key != "estimate"} | {"families": {"small": small}}
    assert table(study)["gigabytes"]["fetch"] == pytest.approx(3680 * 4 / 1e9)


BASE = {"family": "big", "step": "1000", "train": "none", "format": "none", "recipe": "none", "seed": "0"}
TUNED = BASE | {"train": "mnli", "format": "default", "recipe": "sft"}
WHOLE = {"suite": "s", "tests": "all"}


def test_what_is_to_be_run_takes_as_long_as_estimated_until_something_was_measured(tmp_path, monkeypatch):
    """A prediction is estimated at 49.86 s (see above). One that took ten times as long makes the other five ten times longer."""
    monkeypatch.setattr(costs, "sizes", lambda names, folder: SIZES)
    study = config_checks.read(STUDY)
    jobs = {"tune": [TUNED] * 2, "predict": [BASE | WHOLE] * 5, "score": [BASE | WHOLE]}
    first, second = costs.planned(study, jobs, tmp_path, tmp_path)
    assert (first.rule, first.jobs, first.measured) == ("tune", 2, 0)
    assert first.hours == pytest.approx(2 * 105.6 / 3600)
    assert second.hours == pytest.approx(5 * 49.86 / 3600)
    for step, seconds in (("2000", 498.6), ("3000", 1e6)):  # the study has no step 3000
        part = tmp_path / "predict" / f"{grid.path(BASE | WHOLE | {'step': step}, grid.PART_KEYS)}.tsv"
        part.parent.mkdir(parents=True)
        part.write_text(f"s\th:m:s\n{seconds}\t0\n")
    _, second = costs.planned(study, jobs, tmp_path, tmp_path)
    assert (second.measured, second.hours) == (1, pytest.approx(5 * 498.6 / 3600))
    # The same time by the clock on two GPUs is twice as much of theirs.
    study["suites"]["s"]["gpus"] = 2
    _, second = costs.planned(study, jobs, tmp_path, tmp_path)
    assert (second.measured, second.hours) == (1, pytest.approx(5 * 2 * 498.6 / 3600))


def test_a_task_that_is_not_prepared_has_the_hub_s_rows_and_a_typical_length(tmp_path):
    found = costs.sizes(["mnli", "mini_facts"], tmp_path)
    assert (found["mnli"].train, found["mnli"].test, found["mnli"].choices) == (392702, 9815, 3.0)
    assert found["mini_facts"] == TaskSize(costs.MINI_ROWS, costs.MINI_ROWS, *costs.MINI["choice"])
    assert set(costs.TYPICAL) == set(task.KINDS)


def test_a_fetched_base_tells_its_parameters(tmp_path, monkeypatch):
    manifest = tmp_path / "bases/family=big/step=2000/base.json"
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    asked = []
    monkeypatch.setattr(costs, "fetched", lambda path: asked.append(path) or resources.Size(1e9, 1))
    monkeypatch.setattr(costs, "sizes", lambda names, folder: SIZES)
    study = config_checks.read(
        {key: value for key, value in STUDY.items() if key != "estimate"} | {"estimate": {"flops": 1e12}}
    )
    [stage] = costs.planned(study, {"tune": [TUNED]}, tmp_path, tmp_path)
    assert asked == [str(manifest)] and stage.hours == pytest.approx(105.6 / 3600)
