"""Time of a run on a machine without a GPU: sums by hand at a rate of 1 GFLOP/s, of which 0.6 is reached."""

from pathlib import Path

import pytest
import running

from workflow.jobs import cpu
from workflow.planning import config_checks, costs, local_time, messages
from workflow.planning.costs import Stage, Work
from workflow.study import grid

RATE = 1e9
KEYS = {"family": "tiny", "step": "20", "train": "mini_facts", "format": "default", "recipe": "full", "seed": "0"}


def test_work_takes_its_operations_and_its_starts() -> None:
    """6e11 operations, and 2e11 for 1,000 tokens of a model of 1e8 parameters, at .6e9 a second; two starts of .5 s."""
    hours = local_time.hours_on_core(RATE)(Work(1e8, 6e11, 1000, 2))
    assert hours * 3600 == pytest.approx(8e11 / 0.6e9 + 1)


def test_every_rule_has_a_time(tmp_path: Path) -> None:
    """Pre-training: parameters x 6 x tokens; rules that run no model: a second for each job."""
    study = config_checks.read(running.SMOKE)
    block = study["families"]["tiny"]["pretraining"]
    width = block["hidden"]
    parameters = block["vocabulary"] * width + block["layers"] * (4 * width**2 + 3 * width * block["intermediate"])
    jobs = {
        "generate": [{}],
        "pretrain": [{"family": "tiny", "step": "10"}, {"family": "tiny", "step": "20"}],
        "measure": [KEYS] * 2,
        "tune": [KEYS],
        "score": [KEYS] * 3,
    }
    stages = {stage.rule: stage for stage in local_time.stages(study, jobs, tmp_path, RATE)}
    assert list(stages) == list(jobs)
    operations = 6 * parameters * block["batch"] * block["sequence"] * block["steps"]
    assert stages["pretrain"].hours * 3600 == pytest.approx(operations / 0.6e9 + 2 * 0.5)
    assert stages["score"].hours * 3600 == pytest.approx(3)
    assert stages["generate"].hours * 3600 == pytest.approx(1)
    assert all(stage.hours > 0 and not stage.measured for stage in stages.values())


def test_measured_jobs_count_more_than_the_rate(tmp_path: Path) -> None:
    """Two measured jobs of 10 s, whatever the rate says."""
    for step in "20", "40":
        path = tmp_path / f"results/benchmarks/measure/family=tiny/step={step}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("s\th:m:s\n10\t0:00:10\n")
    study = config_checks.read(running.SMOKE)
    [stage] = local_time.stages(study, {"measure": [KEYS] * 3}, tmp_path, RATE)
    assert (stage.measured, stage.hours) == (2, pytest.approx(30 / 3600))


def test_cores_share_the_work_but_not_one_pretraining() -> None:
    stages = [Stage("pretrain", 1, 4, 0), Stage("tune", 9, 4, 0)]
    assert local_time.whole(stages, 1) == 8
    assert local_time.whole(stages, 2) == 4
    assert local_time.whole(stages, 16) == 2
    assert local_time.whole(stages, 16, families=4) == 0.5


def test_the_rate_is_that_of_one_core() -> None:
    """Between a hundredth and a hundred times that of a common core."""
    assert 1e9 < local_time.rate() < 1e13


def test_a_run_without_a_gpu_says_so(tmp_path: Path) -> None:
    """20,000 jobs of a second on four cores are 83.3 minutes; three rules with the longest times are named."""
    study = config_checks.read(running.SMOKE)
    jobs = {"score": [KEYS] * 20000, "gather": [KEYS] * 30, "audit": [KEYS], "find": [KEYS]}
    line = list(messages.beginning(study, jobs, tmp_path, RATE, 4))[-1]
    assert line == (
        "About 1.4 h on 4 cores, without a GPU (CPU: score 5.6 h, gather 30 s, audit 1 s): estimated from 1 GFLOP/s a core."
    )


@pytest.mark.parametrize(
    ("flags", "told"), [("avx2", True), ("avx2 avx512_bf16", False), ("asimd svebf16", False), ("", False)]
)
def test_bf16_without_units_for_it_is_told_in_one_line(
    flags: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "facts", lambda: {"flags": flags})
    study = config_checks.read(running.SMOKE)
    study["recipes"]["full"]["precision"] = "bf16"
    lines = [line for line in messages.beginning(study, {"score": [KEYS]}, tmp_path, RATE, 4) if "bf16" in line]
    assert (
        lines
        == ["Warning: precision bf16 in recipes/full: this CPU has no units for bf16, fp32 is several times as fast."][
            :told
        ]
    )
    assert not [line for line in messages.beginning(study, {"score": [KEYS]}, tmp_path) if "bf16" in line]  # on a GPU


def test_what_is_written_is_what_is_predicted() -> None:
    """The rows of a part are those of its tests in every format and with every number of shots, within the limit."""
    study = config_checks.read(running.SMOKE)
    part = grid.parts(study).to_dict("records")[0]
    sizes = {name: costs.TaskSize(10, 7, 5.0, 1.0, 2.0) for name in grid.tasks(study)}
    suite = study["suites"][part["suite"]]
    expected = len(grid.part_tests(suite, part["train"], part["tests"])) * len(suite["formats"]) * len(suite["shots"])
    assert costs._rows_predicted(study, part, sizes) == expected * min(7, suite.get("limit", 7))
