"""Models with different names that are identical, or whose evaluations are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from workflow.audit.inputs import AuditInputs, TestRows, finding, listed, method_of
from workflow.settings import Base
from workflow.study import grid

MODEL = [key for key in grid.CELL_KEYS if key != "suite"]

READS = ("id", "logprobs")
FEWEST = 3  # tests: two models that agree on fewer are not reported
ENOUGH = 10  # tests: from here on an error; on a few coarse tests two models may both predict one label
NEARLY = 0.95  # share of equal tests from which on two models of different families are reported
CERTAIN = 0.05  # familywise: probability that any two different models of the study agree this much
DISCORDANT = 0.05  # smallest share of a test's rows on which two different models differ
START = 1  # last step with the initial weights: the first update of a warm-up has learning rate 0


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """Findings on bases with equal weights, models with equal log-probabilities, and imported models whose scores agree in
    more tests than chance explains."""
    yield from _weights(material.bases())
    yield from _shards(material.bases())
    yield from _predictions(material)
    yield from _scores(material.imported)


def _weights(bases: Iterable[Base]) -> Iterator[dict[str, Any]]:
    rows = [
        {
            "family": base["family"],
            "step": base["step"],
            "weights": _hashes(base),
        }
        for base in bases
    ]
    for _, same in pd.DataFrame(rows, columns=["family", "step", "weights"]).groupby("weights"):
        if len(same) > 1:
            evidence = f"{len(same)} bases have the same weights: {_named(same)}"
            severity = "note" if (same["step"] <= START).all() else "error"
            yield finding(severity, same, evidence, value=float(len(same)), limit=1.0, n=len(rows))


def _shards(bases: Iterable[Base]) -> Iterator[dict[str, Any]]:
    """Bases that share some but not all weight files, so that one may contain a part of another."""
    rows = [
        {"family": base["family"], "step": base["step"], "file": name, "sha256": file["sha256"], "whole": _hashes(base)}
        for base in bases
        for name, file in base["files"].items()
        if name.endswith(".safetensors")
    ]
    table = pd.DataFrame(rows, columns=["family", "step", "file", "sha256", "whole"])
    for _, same in table.groupby("sha256"):
        if same["whole"].nunique() > 1:
            evidence = (
                f"{len(same)} bases have the same {listed(same['file'].unique())}, but other weight files that differ: "
                f"{_named(same)}; one of them may contain a part of another"
            )
            yield finding("warning", same, evidence, value=float(len(same)), limit=1.0, n=len(table))


def _hashes(base: Base) -> str:
    """The hashes of a base's weight files, sorted."""
    return str(sorted(file["sha256"] for name, file in base["files"].items() if name.endswith(".safetensors")))


def read(test: TestRows, material: AuditInputs) -> dict[str, Any] | None:
    """A hash of the log-probabilities of one model on one test; nothing of generated text."""
    if not len(test["logprobs"][0]):
        return None
    content = " ".join(test["id"]).encode() + np.concatenate(list(test["logprobs"])).tobytes()
    keys = {key: test.keys[key] for key in (*grid.CELL_KEYS, *grid.TEST_KEYS)}
    return keys | {"content": hashlib.sha256(content).hexdigest()}


def _predictions(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """Cells of a suite that are evaluated on the same tests and have equal log-probabilities in every row."""
    table = pd.DataFrame(material.readings(__name__), columns=[*grid.CELL_KEYS, *grid.TEST_KEYS, "content"])
    cells = table.groupby(grid.CELL_KEYS, as_index=False).agg(content=("content", "|".join))
    for _, same in cells.groupby(["suite", "content"]):
        if len(same) > 1:
            evidence = f"{len(same)} models have the same log-probabilities in every row: {_named(same)}"
            start = (same["step"] <= START).all() and (same["train"] == "none").all()
            yield finding("note" if start else "error", same, evidence, value=float(len(same)), limit=1.0, n=len(cells))


def _scores(scores: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Pairs of imported models whose scores agree to the last digit, without label tests and scores of 0 and 1, which tie."""
    label = scores["test"].map(method_of) == "label"
    scores = scores[~label & ~scores["value"].isin([0.0, 1.0])]
    table = scores.pivot_table(index=MODEL, columns=[*grid.TEST_KEYS, "metric"], values="value")
    if len(table) < 2:
        return
    pairs = _agreeing(table.to_numpy(dtype=float), _chance(scores, table))
    models = pd.DataFrame(list(table.index), columns=MODEL)
    compared_pairs = pairs.assign(
        one=models.loc[pairs["first"], "family"].to_numpy(), other=models.loc[pairs["second"], "family"].to_numpy()
    )
    compared_pairs["start"] = (
        _early(models)[compared_pairs["first"]] & _early(models)[compared_pairs["second"]]
    ).astype(bool)
    compared_pairs = compared_pairs[
        (compared_pairs["equal"] == compared_pairs["compared"]) | (compared_pairs["one"] != compared_pairs["other"])
    ]
    for (_, _, start, _), stretch in compared_pairs.groupby(
        ["one", "other", "start", compared_pairs["equal"] == compared_pairs["compared"]]
    ):
        yield _pairs_finding(models, stretch, start, len(table) * (len(table) - 1) // 2)


def _early(models: pd.DataFrame) -> Any:
    """True for untouched bases at the start of a run, shape (models,)."""
    return ((models["step"] <= START) & (models["train"] == "none")).to_numpy(dtype=bool)


def _chance(scores: pd.DataFrame, table: pd.DataFrame) -> Any:
    """The probability for each test that two different models tie, shape (tests,): from its number of rows or, if larger, from
    the share of pairs of models that tie, without models that agree in all tests."""
    size = scores["n"].astype(float).fillna(scores["value"] * (1 - scores["value"]) / scores["error"] ** 2)
    rows = size.groupby([scores[key] for key in (*grid.TEST_KEYS, "metric")]).median().reindex(table.columns)
    by_rows = (1 / np.sqrt(2 * np.pi * DISCORDANT * rows.clip(lower=1).fillna(np.inf).to_numpy())).clip(0, 0.5)
    whole = table.drop_duplicates()
    pairs = whole.notna().sum().to_numpy() * (whole.notna().sum().to_numpy() - 1) / 2
    ties = np.array([(counts * (counts - 1) / 2).sum() for counts in (whole[c].value_counts() for c in whole)])
    return np.maximum(by_rows, (ties + 1) / (pairs + 2))


def _agreeing(values: Any, chance: Any) -> pd.DataFrame:
    """Pairs of models that agree in all their tests, or in nearly all of at least ENOUGH tests, and in more than chance
    explains: columns first, second, equal, compared, expected. values: shape (models, tests)."""
    agreeing, limit = [], np.log(CERTAIN / (len(values) * (len(values) - 1) / 2))
    for first in range(len(values) - 1):
        both = ~np.isnan(values[first + 1 :]) & ~np.isnan(values[first])
        same = values[first + 1 :] == values[first]
        equal, compared = same.sum(axis=1), both.sum(axis=1)
        near = (equal == compared) | ((compared >= ENOUGH) & (equal >= NEARLY * compared))
        for index in np.flatnonzero(near & (equal >= FEWEST)):
            # A union bound over which tests do not tie.
            missing = int(compared[index] - equal[index])
            bound = np.log(chance[same[index]]).sum() + missing * np.log(max(1, compared[index]))
            if bound < limit:
                expected = float(chance[both[index]].sum())
                agreeing.append((first, first + 1 + index, equal[index], compared[index], expected))
    return pd.DataFrame(agreeing, columns=["first", "second", "equal", "compared", "expected"])


def _pairs_finding(models: pd.DataFrame, pairs: pd.DataFrame, start: bool, compared_pairs: int) -> dict[str, Any]:
    """One finding for the pairs of two families, or of one."""
    equal, compared = int(pairs["equal"].min()), int(pairs["compared"].max())
    sides = [models.loc[pairs[side]].reset_index(drop=True) for side in ("first", "second")]
    names = [f"{_named(pd.concat([one, other]))}" for one, other in _rows(sides)]
    exact = (pairs["equal"] == pairs["compared"]).all()
    whole = exact and equal >= ENOUGH
    severity = "note" if start else "error" if whole else "warning"
    meaning = (
        "the initial weights of a run" if start else "one model under two names, or one evaluation imported as two"
    )
    evidence = (
        f"{listed(names, 4)} agree to the last digit in {equal} of {compared} scores, where chance gives at most "
        f"{pairs['expected'].max():.1f}: {meaning}"
    )
    rows = pd.concat(sides)
    return finding(severity, rows, evidence, value=float(equal), limit=float(pairs["expected"].max()), n=compared_pairs)


def _rows(sides: list[pd.DataFrame]) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Both models of each pair, each as a frame of one row."""
    return ((sides[0].iloc[[i]], sides[1].iloc[[i]]) for i in range(len(sides[0])))


def _named(models: pd.DataFrame) -> str:
    """Names of models: step, task tuned on if any, and family."""
    families = models["family"].unique()
    names = [
        f"step {row['step']}"
        + (f" of {row['family']}" if len(families) > 1 else "")
        + (f" tuned on {row['train']}" if row.get("train", "none") != "none" else "")
        for row in models.to_dict("records")
    ]
    return listed(names, 9) + (f" of {families[0]}" if len(families) == 1 else "")
