"""The results as a Markdown report: goals met or not, every cell's values, and what a study costs by them."""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.gpu import running
from benchmarks.gpu.running import Part, Result

Cells = Mapping[tuple[str, str], Result]
STUDY = "studies/olmo-1b/config.yaml"
FLOOR = {"full": 45.0, "short": 25.0, "0-shot": 5.0, "4-shot": 15.0, "written": 4.0, "hours": 60.0}


class Goal(NamedTuple):
    """What is asked for: in words, the figure from the cells (None: not measured), the bound, whether more is better."""

    words: str
    figure: Callable[[Cells], float | None]
    bound: float
    more: bool = True


def value(cells: Cells, part: str, cell: str, name: str) -> float | None:
    """A value of a cell that was measured."""
    result = cells.get((part, cell))
    return result["values"].get(name) if result and result["state"] == "ok" else None


def ratio(one: float | None, other: float | None) -> float | None:
    """How many times the other."""
    return one / other if one and other else None


def best(*values: float | None) -> float | None:
    """The largest of those that were measured."""
    return max((own for own in values if own is not None), default=None)


def _scoring(cells: Cells, shots: str) -> float | None:
    return ratio(value(cells, "scoring", shots, "prompts/s"), value(cells, "scoring", f"lm-eval {shots}", "prompts/s"))


def _written(cells: Cells, test: str) -> float | None:
    peers = [value(cells, "generation", f"generate {test}", "tokens/s"),
             value(cells, "compiled", f"compiled {test}", "tokens/s")]  # fmt: skip
    return ratio(value(cells, "generation", test, "tokens/s"), best(*peers))


GOALS = (
    Goal("tuning at 2k tokens, full, OLMo-1B: % of bf16 peak",
         lambda cells: value(cells, "tuning", "full, 2k tokens", "% of peak"), FLOOR["full"]),
    Goal("tuning at MNLI rows, full, OLMo-1B: % of bf16 peak",
         lambda cells: value(cells, "tuning", "full, MNLI rows", "% of peak"), FLOOR["short"]),
    Goal("scoring, 0-shot: × lm-evaluation-harness at its best batch size", lambda cells: _scoring(cells, "0-shot"),
         FLOOR["0-shot"]),
    Goal("scoring, 4-shot: × lm-evaluation-harness at its best batch size", lambda cells: _scoring(cells, "4-shot"),
         FLOOR["4-shot"]),
    *(Goal(f"generation, {test}: × the faster `generate` at batch 32", lambda cells, test=test: _written(cells, test),
           FLOOR["written"]) for test in ("0-shot, short", "4-shot, short", "0-shot, XSum")),
    Goal("the published study: GPU-hours (its authors: 1,067 of an A100)", lambda cells: hours(cells), FLOOR["hours"],
         more=False),
)  # fmt: skip


def report(parts: Sequence[Part], found: Sequence[Result], device: str | None = None) -> str:
    """The report of the last device and versions that the results have, or of those at hand."""
    if not found:
        return "No results yet."
    here = running.facts(device) if device else found[-1]
    cells = running.latest(found, here)
    if not cells:
        return "No results of this device and these versions yet."
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items() if number)
    dates = sorted({row["date"] for row in cells.values()})
    driver = f", driver {here['driver']}" if here["driver"] else ""
    lines = [f"**{here['device']}{driver}; {versions}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}**", ""]
    if here["device"] == "CPU":
        lines += ["Small models stand in for a GPU's: these figures try the code and measure nothing.", ""]
        return "\n".join([*lines, *_cells(parts, cells)])
    return "\n".join([*lines, *_goals(cells), *_cells(parts, cells), *_memory(cells), *_costs(cells)])


def _goals(cells: Cells) -> list[str]:
    """Each goal beside what was measured."""
    lines = ["| goal | asked for | measured | |", "|---|---:|---:|---|"]
    for goal in GOALS:
        figure = _figure(goal, cells)
        met = figure is not None and (figure >= goal.bound if goal.more else figure <= goal.bound)
        told = "not measured" if figure is None else "met" if met else "**not met**"
        sign = "≥" if goal.more else "≤"
        lines.append(
            f"| {goal.words} | {sign} {goal.bound:g} | {'–' if figure is None else f'{figure:.1f}'} | {told} |"
        )
    return [*lines, ""]


def _figure(goal: Goal, cells: Cells) -> float | None:
    """A goal's figure; what cannot be reckoned is said, and hides no other."""
    try:
        return goal.figure(cells)
    except Exception as error:
        print(f"{goal.words}: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def _cells(parts: Sequence[Part], cells: Cells) -> list[str]:
    """Every cell with its values, in the order of the parts; what was not measured says so."""
    lines = ["| part | cell | values | s |", "|---|---|---|---:|"]
    for part in parts:
        for cell in part.cells:
            result = cells.get((part.name, cell))
            if result is None:
                told, seconds = "not run", ""
            elif result["state"] == "ok":
                told = ", ".join(f"{name} {_shown(own)}" for name, own in result["values"].items() if own is not None)
                seconds = f"{result['seconds']:.0f}"
            else:
                told, seconds = f"**{result['state']}**: {result.get('error', '')}", f"{result['seconds']:.0f}"
            lines.append(f"| {part.name} | {cell} | {told.replace('|', '/')} | {seconds} |")
    return [*lines, ""]


def _shown(own: Any) -> str:
    return f"{own:,}" if isinstance(own, int) and not isinstance(own, bool) else str(own)


def _memory(cells: Cells) -> list[str]:
    """Memory beside what `resources` reckons; more than reckoned fails a job that shares its GPU."""
    rows = [(part, cell, result["values"]) for (part, cell), result in cells.items()
            if result["values"].get("GB") and "GB reckoned" in result["values"]]  # fmt: skip
    if not rows:
        return []
    lines = ["| memory, GB | held | reckoned | held / reckoned |", "|---|---:|---:|---:|"]
    for part, cell, values in rows:
        share = values["GB"] / values["GB reckoned"]
        told = f"{share:.2f}{' **too little**' if share > 1 else ''}"
        lines.append(f"| {part}, {cell} | {values['GB']} | {values['GB reckoned']} | {told} |")
    return [*lines, ""]


class Speeds(NamedTuple):
    """What a study's hours follow from: operations a second of tuning and of reading, tokens written in a second, a start."""

    tuning: float
    reading: float
    written: float
    start: float


def speeds(cells: Cells) -> Speeds | None:
    """Measured speeds of OLMo-1B; None where one is missing."""
    from benchmarks.gpu.subjects import PEAK

    shares = [value(cells, "tuning", f"full, {rows}", "% of peak") for rows in ("MNLI rows", "XSum rows")]
    read = [value(cells, "scoring", shots, "% of peak, nothing shared") for shots in ("0-shot", "4-shot")]
    written = [
        value(cells, "generation", test, "tokens/s") for test in ("0-shot, XSum", "0-shot, short", "4-shot, short")
    ]
    start = value(cells, "start", "job", "first answer, fp32")
    if start is None or None in [*shares, *read, *written]:
        return None
    mean = statistics.harmonic_mean
    return Speeds(mean(shares) / 100 * PEAK, mean(read) / 100 * PEAK, mean(written), start)


@functools.cache
def estimate(flops: float, written: float) -> Any:
    """`snakemake estimate` of the published study at a speed, by rule."""
    import yaml

    from workflow.planning import config_checks, costs
    from workflow.study import grid

    study = config_checks.read(yaml.safe_load((running.ROOT / STUDY).read_text(encoding="utf-8")))
    study["estimate"] |= {"flops": flops, "written": written}
    return costs.estimate(study, costs.sizes(grid.tasks(study), running.ROOT / "resources/tasks")).set_index("rule")


def estimates(found: Speeds) -> dict[str, float]:
    """GPU-hours of each rule of the published study at these speeds."""
    from workflow.planning import costs

    speeds = {"try_rate": found.tuning, "tune": found.tuning, "predict": found.reading}
    hours = {}
    for rule, flops in speeds.items():
        own = estimate(flops, found.written).loc[rule]
        # A start as measured, in place of the one assumed.
        hours[rule] = float(own["gpu_hours"] + own["jobs"] * (found.start - costs.START) / 3600)
    return hours


def hours(cells: Cells) -> float | None:
    """GPU-hours of the published study at measured speeds."""
    found = speeds(cells)
    return sum(estimates(found).values()) if found else None


def _costs(cells: Cells) -> list[str]:
    """The lines that `estimate` and `resources` should have by these measurements."""
    found = speeds(cells)
    if found is None or _figure(GOALS[-1], cells) is None:
        return []
    by_rule = ", ".join(f"{rule} {own:.1f}" for rule, own in estimates(found).items())
    return [
        f"`{STUDY}` in GPU-hours: {by_rule}. By these figures: `estimate: {{flops: {min(found.tuning, found.reading):.2e}, "
        f"written: {found.written:.0f}}}`; `resources.GPU_SPEED[\"bf16\"]` {found.tuning:.1e}, `resources.WRITTEN` "
        f"{found.written:.0f} (halve both for slower GPUs and rows); `costs.START` {found.start:.0f} s.", "",
    ]  # fmt: skip


def main(results: str, device: str, *names: str) -> None:
    """Print the report of this machine's device."""
    from pathlib import Path

    from benchmarks.gpu import parts

    print(report(parts.chosen(names), running.read(Path(results)), device))


if __name__ == "__main__":
    main(*sys.argv[1:])
