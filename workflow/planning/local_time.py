"""Estimated time of a run on this machine, where it has no GPU: from its rate of matrix products, or from earlier jobs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

from workflow.planning import costs, resources
from workflow.planning.costs import Stage, Work
from workflow.settings import Study
from workflow.study import grid

ORDER = 512  # of the square matrices whose product is timed
PRODUCTS = 5
SHARE = 0.6  # of that rate, in training and scoring of small models: .5 to .8 on two CPUs (LOG.md)
START = 0.5  # seconds of CPU until a job begins to work
OTHER = 1.0  # seconds of CPU of a job that runs no model, its start included
PARALLEL = 2  # threads of a pre-training, the only rule that has several


def rate() -> float:
    """Operations in a second of CPU of one core: the fastest of a few products of fp32 matrices, in 20 ms."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    matrix, seconds = np.ones((ORDER, ORDER), np.float32), []
    with threadpool_limits(1, user_api="blas"):
        for _ in range(PRODUCTS):
            begun = time.thread_time()
            matrix @ matrix
            seconds.append(time.thread_time() - begun)
    return 2 * ORDER**3 / min(seconds)


def hours_on_core(rate: float) -> Callable[[Work], float]:
    """A function that returns the hours of work on one core. A generated token costs as many operations as one that is read."""

    def hours(work: Work) -> float:
        operations = work.operations + resources.FORWARD * work.parameters * work.written
        return (operations / (SHARE * rate) + START * work.starts) / 3600

    return hours


def stages(study: Study, jobs: Mapping[str, Sequence[Mapping[str, str]]], folder: Path, rate: float) -> Iterator[Stage]:
    """Estimated hours on one core of the jobs left to run, for every rule.

    jobs: rule -> keys of each; folder: the study's folder; rate: operations in a second of one core.
    Errors: StudyError for a family whose number of parameters is neither in the config nor known from a fetched base.
    """
    hours = hours_on_core(rate)
    planned = costs.planned(study, jobs, folder / "resources", folder / "results/benchmarks", hours)
    known = {stage.rule: stage for stage in planned}
    for rule, keys_of_jobs in jobs.items():
        if rule in known:
            yield known[rule]
        elif rule in MODEL_WORK:
            of_base = functools.cache(functools.partial(MODEL_WORK[rule], study, folder))
            taken = sum(hours(of_base(keys["family"], keys["step"])) for keys in keys_of_jobs)
            yield Stage(rule, len(keys_of_jobs), taken, 0)
        else:
            yield Stage(rule, len(keys_of_jobs), len(keys_of_jobs) * OTHER / 3600, 0)


def whole(stages: Sequence[Stage], cores: int, families: int = 1) -> float:
    """Estimated hours by the clock: all cores at work, but the pieces of a pre-training one after the other.

    families: the number of those that are trained. On more than PARALLEL cores a pre-training has that many threads, else one.
    """
    chain = sum(stage.hours for stage in stages if stage.rule == "pretrain") / max(1, families)
    return max(sum(stage.hours for stage in stages) / cores, chain / (PARALLEL if cores > PARALLEL else 1))


def _pretraining(study: Study, folder: Path, family: str, step: str) -> Work:
    """The work of the piece of a pre-training up to a saved step."""
    block = study["families"][family]["pretraining"]
    updates = int(step) - max((saved for saved in block["save"] if saved < int(step)), default=0)
    parameters = costs.parameters_of(study, family, folder / "resources/bases")
    return Work(parameters, resources.TRAINING * parameters * block["batch"] * block["sequence"] * updates)


def _measuring(study: Study, folder: Path, family: str, step: str) -> Work:
    """The work of all indicators of one base, whose tests have rows as long as those of the study's tasks on average."""
    parameters = costs.parameters_of(study, family, folder / "resources/bases")
    prepared = folder / "resources/tasks"
    lengths = [size.prompt + size.answer for size in costs.sizes(grid.tasks(study), prepared).values()]
    size, rows = resources.Size(parameters, 0.0), SimpleNamespace(tasks=sorted(map(str, prepared.glob("*.parquet"))))
    mean = sum(lengths) / len(lengths) if lengths else resources.MEAN_TOKENS
    return Work(parameters, resources.operations_of_indicators(study, size, rows, mean))


MODEL_WORK: dict[str, Callable[[Study, Path, str, str], Work]] = {"pretrain": _pretraining, "measure": _measuring}
