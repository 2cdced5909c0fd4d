"""Time and size of the page of results for a made-up study: `python benchmarks/page.py --checkpoints 200 --tests 30`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "report")]

import page_study  # noqa: E402

from workflow.report.page import rendering  # noqa: E402
from workflow.report.page.inputs import PageInputs  # noqa: E402


def study(checkpoints: int, tests: int, tasks: int = 3, seed: int = 0) -> PageInputs:
    """A study whose scores are noise around curves of learning: each checkpoint tuned on some tasks, tested on all tests."""
    noise = np.random.default_rng(seed)
    steps, names = range(100, 100 * (checkpoints + 1), 100), [f"test{number:02d}" for number in range(tests)]
    trained = ["none", *names[:tasks]]
    values = {
        (s, t, n): float(0.3 + 0.5 * s / (s + 3000) + 0.02 * noise.normal())
        for s in steps
        for t in trained
        for n in names
    }
    scores = [page_study.score(*key, value) for key, value in values.items()]
    scores += [page_study.score(s, t, n, 0.25, "chance", primary=False) for s, t, n in values]
    analysis = [page_study.level(*key, value) for key, value in values.items()]
    tuned = [key for key in values if key[1] != "none"]
    analysis += [page_study.change(*key, values[key] - values[key[0], "none", key[2]], 0.2) for key in tuned]
    chosen = [
        row
        for task in names[:tasks]
        for row in page_study.recommended(task, {step: (values[step, task, task], 1 / checkpoints) for step in steps})
    ]
    small = page_study.inputs()
    own = {"scores": scores, "analysis": analysis, "recommendations": chosen}
    return PageInputs(dict(small.tables) | {name: pd.DataFrame(rows) for name, rows in own.items()}, small.settings)


def main() -> None:
    """Make the page, and print CPU seconds and megabytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=20)
    parser.add_argument("--tests", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    inputs = study(asked.checkpoints, asked.tests)
    start = time.process_time()
    text = rendering.page(inputs)
    print(
        f"{len(inputs.tables['scores'])} scores: {time.process_time() - start:.1f} s of CPU, {len(text.encode()) / 1e6:.1f} MB"
    )
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
