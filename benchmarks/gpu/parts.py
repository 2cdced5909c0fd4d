"""The parts of `make gpu`, most telling first, and the process that measures one of them."""

from __future__ import annotations

import importlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import running
from benchmarks.gpu.running import Part

TESTS = "tests"
# Seconds that a part may take; a whole run is to take no more than twenty minutes of an H100.
PARTS = (
    Part(TESTS, None, ("marked gpu",), 240),
    Part("tuning", "tuning", ("full, MNLI rows", "full, 2k tokens", "full, XSum rows", "LoRA, MNLI rows",
                              "LoRA, 2k tokens", "Trainer, MNLI rows"), 240),
    Part("exactness", "exactness", ("log-probabilities fp32", "log-probabilities bf16", "greedy fp32", "greedy bf16",
                                    "flips bf16", "losses fp32", "losses bf16"), 240),
    Part("scoring", "scoring", ("0-shot", "4-shot", "lm-eval 0-shot", "lm-eval 4-shot"), 240),
    Part("generation", "generation", ("0-shot, XSum", "0-shot, short", "4-shot, short", "generate 0-shot, XSum",
                                      "generate 0-shot, short", "generate 4-shot, short"), 240),
    Part("compiled", "generation", ("compiled 0-shot, short", "compiled 4-shot, short", "compiled 0-shot, XSum"), 300),
    Part("start", "starting", ("job",), 150),
    Part("7B", "tuning", ("7B LoRA, 512 tokens",), 150),
    Part("pretraining", "pretraining", ("OLMo-1B step", "default study's model"), 120),
    Part("Trainer at 2k", "tuning", ("Trainer, 2k tokens",), 120),
    Part("profile", "profile", ("tuning, MNLI rows", "tuning, 2k tokens", "scoring, 0-shot", "generation, short"), 200),
)  # fmt: skip


def chosen(names: Sequence[str]) -> list[Part]:
    """The parts of these names, all where none is named; exits where one is not known."""
    known = {part.name: part for part in PARTS}
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"--only {unknown[0]}: no such part; allowed: {', '.join(known)}")
    return [known[name] for name in names] if names else list(PARTS)


def cells(part: Part) -> dict[str, Callable[[Any], dict[str, Any]]]:
    """What measures each cell of a part: takes a `subjects.Setting` and gives values by name."""
    if part.module is None:
        return {"marked gpu": _tested}
    found = importlib.import_module(f"benchmarks.gpu.{part.module}").CELLS
    return {name: found[name] for name in part.cells}


def measured(part: Part, names: Sequence[str], results: Path, here: Mapping[str, Any], setting: Any) -> None:
    """Measure cells one after the other, each added to the results as it ends; a failure is a result too.

    here: what the results hold for, see `running.facts`.
    """
    for name in names:
        start = time.monotonic()
        outcome: dict[str, Any] = {"state": "ok", "values": {}}
        try:
            outcome["values"] = cells(part)[name](setting)
        except Exception as error:  # whatever it is, the next cell has its turn
            traceback.print_exc()
            last = str(error).strip().splitlines()
            outcome |= {"state": "failed", "error": f"{type(error).__name__}: {last[0] if last else ''}"[:500]}
        seconds = round(time.monotonic() - start, 1)
        row = {**here, "part": part.name, "cell": name, **outcome, "seconds": seconds, "date": running.today()}
        running.add(results, row)
        told = ", ".join(f"{key} {value}" for key, value in outcome["values"].items())
        print(f"  {name}: {outcome.get('error') or told} ({seconds} s)", flush=True)
        _tidy(setting)


def _tidy(setting: Any) -> None:
    """Give back what the last cell held."""
    import gc

    gc.collect()
    if "torch" in sys.modules and setting.device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _tested(setting: Any) -> dict[str, Any]:
    """Run the tests marked `gpu`; how many passed, failed, were skipped. Raises where one failed or none ran."""
    import pytest

    class Counting:
        def __init__(self) -> None:
            self.counts = {"passed": 0, "failed": 0, "skipped": 0}
            self.failed: list[str] = []

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.when == "call" or report.outcome != "passed":
                self.counts[report.outcome] += 1
                self.failed += [report.nodeid.rsplit("::", 1)[-1]] if report.failed else []

    seen = Counting()
    code = pytest.main(
        ["-m", "gpu", "-p", "no:cacheprovider", "-q", "--tb=short", "tests/models/engine/test_gpu.py"], [seen]
    )
    if code or not seen.counts["passed"]:
        raise RuntimeError(f"{seen.counts}, pytest ended with {int(code)}: {', '.join(seen.failed)}")
    return seen.counts


def main(name: str, results: str, here: str, *names: str) -> None:
    """Measure cells of a part in this process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    from benchmarks.gpu.subjects import Setting

    facts = json.loads(here)
    [part] = chosen([name])
    measured(part, names, Path(results), facts, Setting("cpu" if facts["device"] == "CPU" else "cuda"))


if __name__ == "__main__":
    main(*sys.argv[1:])
