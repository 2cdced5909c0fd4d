"""How far means over twenty random splits depend on which splits were drawn: `python benchmarks/split_draws.py`.

Prints a Markdown table for LightGBM on a study's indicators, tie rule `gt`: the lowest, mean and highest accuracy of
blocks of twenty splits with consecutive seeds, and of the longest shortlist that a block needs to hold the best base.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from workflow.forecasting import classifiers, cohorts, pairs, ranking, splits
from workflow.planning import config_checks


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, default=Path("studies/indicators-published"), help="folder of the study")
    parser.add_argument("--blocks", type=int, default=10, help="blocks of twenty splits")
    given = parser.parse_args()
    os.chdir(given.study)
    block = config_checks.read(yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8")))["cohorts"]["published"]
    table = cohorts.read(block)
    print("| fitted on | target | accuracy of a block | longest shortlist |\n| --- | --- | --- | --- |")
    for source in table.targets:
        for target, blocks in measured(table, source, given.blocks).items():
            accuracy, longest = blocks.T
            lengths = f"{longest.min():.0f} – {longest.mean():.1f} – {longest.max():.0f}"
            spread = f"{accuracy.min():.3f} – {accuracy.mean():.3f} – {accuracy.max():.3f}"
            print(
                f"| {source} | {target} | {spread} | {lengths} |",
                flush=True,
            )


def measured(table: cohorts.Cohort, source: str, blocks: int) -> dict[str, np.ndarray]:
    """Mean accuracy and longest shortlist of each block, shape (blocks, 2), by target."""
    labels = {target: table.values([target])[:, 0] for target in table.targets}
    found = {target: np.zeros((blocks * splits.REPEATS, 2)) for target in table.targets}
    for seed in range(blocks * splits.REPEATS):
        fold = splits.drawn(table.units, seed)
        fitted = classifiers.fit("lightgbm", table.values(table.indicators), labels[source], fold.train)
        preferences = np.where(fold.pairs, fitted.preferences(), 0)
        counts = ranking.wins(preferences, len(fold.train))[~fold.train]
        for target, values in labels.items():
            accuracy = pairs.accuracy(preferences[fold.pairs], pairs.differences(values)[fold.pairs], "gt")
            found[target][seed] = accuracy, ranking.shortlist(counts, values[~fold.train])
    shaped = {target: own.reshape(blocks, splits.REPEATS, 2) for target, own in found.items()}
    return {target: np.stack([own[..., 0].mean(1), own[..., 1].max(1)], axis=1) for target, own in shaped.items()}


if __name__ == "__main__":
    main()
