"""Turn the runs of an import into rows of a study's tables: check each score, keep it once, add rows, chance and means.

Values that no file states are derived: the number of rows from the standard error of a share, chance from the number of
answers. Remarks on a file (its name contradicts it, another file has the same scores) are rows of `tables.RELEASED`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from statistics import NormalDist
from types import ModuleType
from typing import Any

from workflow import task
from workflow.errors import StudyError, shown
from workflow.evaluation import metric_names
from workflow.released.runs import Model, Run, Score, files, folder_of, model_of, numbers_in_name, skipped
from workflow.settings import Import

Z = NormalDist().inv_cdf(0.975)  # intervals of imported scores are of 95 %, normal approximation
LONGEST = 200  # characters of a test's or metric's name
ROUNDED = 0.02  # of a row: tolerance for a number of rows derived from a standard error

# Chance on common benchmarks, from the number of answers; if rows differ in it, from the most frequent number.
CHANCES = {
    name: 1 / answers
    for answers, names in (
        (2, "piqa* winogrande* wsc* boolq* copa* rte wic qqp mrpc qnli sst2 cola blimp* xstory* xcopa* xwinograd*"),
        (3, "mnli* cb anli_* xnli* social_iqa* siqa*"),
        (4, "mmlu* hendrycksTest-* arc_* ARC-* hellaswag* openbookqa* sciq logiqa* race*"),
        (5, "commonsense_qa* csqa* mathqa*"),
    )
    for name in names.split()
}


@dataclass(frozen=True)
class ImportedResults:
    """The result of an import: rows of `tables.SCORES` and `tables.ITEMS` with the keys of their cells, rows of
    `tables.RELEASED`, and the config fields of each family."""

    scores: list[dict[str, Any]]
    items: list[dict[str, Any]]
    files: list[dict[str, Any]]
    fields: dict[str, dict[str, str]]


# Checks


def check(location: str, score: Score) -> None:
    """Raise StudyError for a score with names or numbers that no harness writes."""
    for what, text in (("test", score.test), ("metric", score.metric)):
        if not isinstance(text, str) or not text.strip() or not text.isprintable() or len(text) > LONGEST:
            raise StudyError(
                f"{location}: found {shown(text)} as the name of a {what}; expected at most {LONGEST} printable characters"
            )
    what = f"{location}: {score.metric} of {score.test}"
    if isinstance(score.value, bool) or not isinstance(score.value, int | float):
        raise StudyError(f"{what}: found {shown(score.value)}, expected a number")
    if metric_names.is_share(score.metric) and score.value == score.value and not 0 <= score.value <= 1:
        hint = "; where all are percentages, say so by `percent` of the import" if 1 < score.value <= 100 else ""
        raise StudyError(f"{what}: found {score.value:g}, expected a share from 0 to 1{hint}")
    if score.error is not None and (
        isinstance(score.error, bool) or not isinstance(score.error, int | float) or score.error < 0
    ):
        raise StudyError(f"{what}: found {shown(score.error)} as standard error, expected a number from 0")
    for key, number, least in (("rows", score.n, 1), ("demonstrations", score.shots, 0)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < least):
            raise StudyError(f"{what}: found {shown(number)} {key}, expected a whole number from {least}")


def rows_of(score: Score) -> int | None:
    """Return the number of rows behind a score: as stated, else from the standard error of a share, p(1 - p) / error² + 1."""
    if score.n is not None or not score.error or metric_names.base(score.metric) not in metric_names.BINARY:
        return score.n
    n = score.value * (1 - score.value) / score.error**2 + 1
    return round(n) if abs(n - round(n)) < ROUNDED * max(1.0, n / 1000) else None


def import_results(block: Import, reader: ModuleType, suite: str, root: str | None = None) -> ImportedResults:
    """Return the results of all files of an import.

    Errors: StudyError for the first file that does not follow the format, with the number of further such files.
    """
    folder = folder_of(block, root)
    runs: list[tuple[str, Run, Model]] = []
    notes: dict[str, list[tuple[str, str]]] = {}
    refused: list[str] = []
    for path in files(block, reader, root):
        name = path.relative_to(folder).as_posix()
        if skipped(block, name):
            notes.setdefault(name, []).append(("skipped", "left out, as `skip` of the import says"))
            continue
        try:
            for run in reader.runs(path, block):
                sound, model, remarks = _sound(run, name, block)
                runs.append((name, sound, model))
                notes.setdefault(name, []).extend(remarks)
        except StudyError as error:
            refused.append(str(error))
    if refused:
        more = f"; {len(refused) - 1} more files have errors" if len(refused) > 1 else ""
        raise StudyError(f"{refused[0]}{more} (`skip` of the import leaves files out)")
    _check_patterns(runs, block)
    return _together(runs, notes, block, suite)


def _sound(run: Run, name: str, block: Import) -> tuple[Run, Model, list[tuple[str, str]]]:
    """Return a run with the checked scores that the study uses, its model, and remarks on its file."""
    model, differing = model_of(run, name, block)
    scaled = _scaled(run, block)
    only, shots = block.get("tests"), block.get("shots")
    scores = [score for score in scaled.scores if only is None or _fits(score.test, only)]
    scores = [replace(score, shots=shots) if score.shots is None else score for score in scores]
    for score in scores:
        check(run.location, score)
        if score.shots is None:
            what = f"{run.location}: {score.metric} of {score.test}"
            raise StudyError(f"{what}: states no number of few-shot examples; expected one, or `shots` of the import")
    infinite = [score for score in scores if not math.isfinite(score.value)]
    remarks = [("mismatch", text) for text in (*differing, *_shots(scores, name))]
    remarks += [("other", text) for text in run.remarks]
    if infinite:
        first = infinite[0]
        remarks.append(
            ("other", f"{len(infinite)} of its scores are not finite, the first {first.metric} of {first.test}")
        )
    return replace(scaled, scores=tuple(scores)), model, remarks


def _check_patterns(runs: Sequence[tuple[str, Run, Model]], block: Import) -> None:
    """Raise StudyError for a pattern that no test matches, and for a mean with the name of a test."""
    tests = {score.test for _, run, _ in runs for score in run.scores}
    grouped: dict[str, dict[str, list[str]]] = {"means": block.get("means", {}), "parts": block.get("parts", {})}
    named = [
        (f"{key}/{name}", pattern)
        for key, groups in grouped.items()
        for name, patterns in groups.items()
        for pattern in (*patterns, *([name] if key == "parts" else []))
    ]
    listed = (
        ("tests", block.get("tests", ())),
        ("metrics", block.get("metrics", ())),
        ("chance", block.get("chance", ())),
    )
    named += [(key, pattern) for key, patterns in listed for pattern in patterns]
    known = tests | set(block.get("means", ()))
    for key, pattern in named:
        if not any(fnmatchcase(test, pattern) for test in known):
            some = ", ".join(sorted(known)[:8]) or "none"
            raise StudyError(f"config.yaml: imports: {key}: no test matches {pattern!r}; the files have {some}")
    for name in sorted(set(block.get("means", ())) & tests):
        raise StudyError(
            f"config.yaml: imports: means/{name}: the files have a test of this name; expected another one"
        )


def _shots(scores: Sequence[Score], name: str) -> list[str]:
    """Return a remark if the number of few-shot examples in a file's name contradicts the file."""
    stated, in_name = {score.shots for score in scores}, numbers_in_name(name, "shots")
    if not in_name or stated & set(in_name):
        return []
    return [f"its name says {in_name[-1]} shots, the file {_joined(stated)}"]


def _scaled(run: Run, block: Import) -> Run:
    """Return a run with the metrics that the study declares as percentages turned into shares."""
    percent = block.get("percent", ())
    if not percent:
        return run

    def share(score: Score) -> Score:
        if not _fits(score.metric, percent) or not isinstance(score.value, int | float):
            return score
        return replace(score, value=score.value / 100, error=None if score.error is None else score.error / 100)

    return replace(run, scores=tuple(map(share, run.scores)))


# All files together

Key = tuple[Any, ...]  # of a model, then test, shots, metric


@dataclass
class _Kept:
    """A score in use, with its file and run."""

    file: str
    run: Run
    score: Score

    @property
    def rows(self) -> Mapping[str, float]:
        """Its value on each row, empty if rows are not known."""
        return self.run.rows.get((self.score.test, self.score.shots, self.score.metric), {})


def _together(
    runs: Sequence[tuple[str, Run, Model]],
    notes: dict[str, list[tuple[str, str]]],
    block: Import,
    suite: str,
) -> ImportedResults:
    """Return the scores of all runs, each once; of repeated scores, the one of the latest run."""
    kept: dict[Key, _Kept] = {}
    models: dict[Key, Model] = {}
    repeats: dict[tuple[str, str], list[tuple[Score, Score]]] = {}
    for name, run, model in sorted(runs, key=lambda entry: (entry[1].date, entry[0])):
        for score in run.scores:
            key = (*model[:6], score.test, score.shots, score.metric)
            if key in kept and kept[key].file == name:
                what = f"{score.metric} of {score.test} with {score.shots} shots of {model.family} at step {model.step}"
                raise StudyError(
                    f"{run.location}: {what} occurs twice, first in {kept[key].run.location}; expected each once"
                )
            if key in kept:
                repeats.setdefault((name, kept[key].file), []).append((score, kept[key].score))
            kept[key], models[key] = _Kept(name, run, score), model
    dates = {name: run.date for name, run, _ in runs}
    for (later, earlier), pairs in repeats.items():
        why = (
            "the later file" if dates[later] > dates[earlier] else "the last by name, since no date says which is later"
        )
        notes.setdefault(later, []).append(("repeated", _repeated(earlier, pairs, why)))
    scores = _rows(kept, models, block, suite)
    counts, stated = Counter(entry.file for entry in kept.values()), _stated(runs)
    listed = [
        row
        for name in sorted({*notes, *stated})
        for row in _listed(name, stated.get(name, {}), counts[name], notes.get(name, []))
    ]
    families = {model.family: dict(model.fields) for model in models.values()}
    return ImportedResults(scores, list(_items(kept, models, scores, suite)), listed, families)


def _repeated(earlier: str, pairs: Sequence[tuple[Score, Score]], why: str) -> str:
    """Return a remark on scores that another file has too. why: the reason to use these."""
    other = [
        (abs(a.value - b.value), a)
        for a, b in pairs
        if a.value != b.value and not (a.value != a.value and b.value != b.value)
    ]
    text = f"{len(pairs)} of its scores are also in {earlier}"
    if not other:
        return f"{text}, all with the same value"
    most, score = max(other, key=lambda pair: pair[0] / (pair[1].error or 1.0))
    apart = f" ({most / score.error:.1f} standard errors)" if score.error else ""
    off = f"{score.metric} of {score.test} by {most:.4f}{apart}"
    return f"{text}, {len(other)} with another value, {off}; those of this file are used, {why}"


def _stated(runs: Iterable[tuple[str, Run, Model]]) -> dict[str, dict[str, Any]]:
    """Return the model that each file states; of several, the first."""
    stated: dict[str, dict[str, Any]] = {}
    for name, run, model in runs:
        shots = {score.shots for score in run.scores}
        facts = {
            "model": "@".join(part for part in (run.model, run.revision) if part),
            "family": model.family,
            "step": model.step,
        }
        stated.setdefault(name, facts | {"tokens": model.tokens, "seed": model.seed, "shots": _joined(shots)})
    return stated


def _joined(numbers: Iterable[int | None]) -> str:
    """Numbers of demonstrations as text, sorted, those that are not known left out."""
    return ", ".join(map(str, sorted(number for number in numbers if number is not None)))


def _listed(
    name: str, facts: Mapping[str, Any], count: int, notes: Sequence[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file: one for each remark, or one without a remark."""
    without: list[tuple[str | None, str | None]] = [(None, None)]
    for remark, evidence in notes or without:
        yield {"file": name, **facts, "scores": count, "remark": remark, "evidence": evidence}


def _rows(
    kept: Mapping[tuple[Any, ...], _Kept], models: Mapping[tuple[Any, ...], Model], block: Import, suite: str
) -> list[dict[str, Any]]:
    """Return rows of `tables.SCORES` with the keys of their cells: scores, means over tests, chance."""
    counts = _counts(kept.values())
    means: dict[str, list[str]] = block.get("means", {})
    wholes = {**means, **block.get("parts", {})}
    rows: list[dict[str, Any]] = []
    by_model: dict[Key, list[dict[str, Any]]] = {}
    for key, entry in kept.items():
        score = entry.score
        n = rows_of(score) or counts.get((score.test, score.metric)) or counts.get((score.test, None))
        value = float(score.value) if math.isfinite(score.value) else None
        part = score.part_of or next((name for name, of in wholes.items() if _fits(score.test, of)), None)
        row = _keys(models[key], score, suite) | {"metric": score.metric, "tokens": models[key].tokens}
        row |= _numbers(value, _error(score, n), n) | {"part_of": part, "chance": _chance(score, block)}
        row["primary"] = score.primary
        rows.append(row | {"better": score.better or metric_names.better(score.metric)})
        by_model.setdefault((*key[:6], score.shots), []).append(rows[-1])
    for group in by_model.values():
        rows += _means(group, means)
    return _finished(rows, block)


def _keys(model: Model, score: Score, suite: str) -> dict[str, Any]:
    """Return the keys of a score's cell and test."""
    keys = {key: getattr(model, key) for key in ("family", "step", "train", "format", "recipe", "seed")}
    return keys | {"suite": suite, "test": score.test, "test_format": "default", "shots": score.shots}


def _numbers(value: float | None, error: float | None, n: int | None) -> dict[str, Any]:
    """Return value, standard error, 95 % interval and number of rows."""
    error = None if error is None or not math.isfinite(error) else float(error)
    ends = (None, None) if error is None or value is None else (value - Z * error, value + Z * error)
    return {"value": value, "error": error, "low": ends[0], "high": ends[1], "n": n}


def _error(score: Score, n: int | None) -> float | None:
    """Return the standard error as stated, else that of a share over its rows, computed as harnesses do."""
    if score.error is not None or n is None or n < 2 or metric_names.base(score.metric) not in metric_names.BINARY:
        return score.error
    return math.sqrt(max(0.0, score.value * (1 - score.value)) / (n - 1)) if math.isfinite(score.value) else None


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _counts(kept: Iterable[_Kept]) -> dict[tuple[str, str | None], int]:
    """Return the number of rows of each test and metric, and of each test, if all files that state it agree."""
    counts: dict[tuple[str, str | None], set[int]] = {}
    for entry in kept:
        if n := rows_of(entry.score):
            for metric in (entry.score.metric, None):
                counts.setdefault((entry.score.test, metric), set()).add(n)
    return {key: min(numbers) for key, numbers in counts.items() if len(numbers) == 1}


def _chance(score: Score, block: Import) -> float | None:
    """Return the chance level: declared by the study, from the file's choices, from the task's labels, or known for the
    benchmark, in this order; None if unknown, and for metrics without a chance level."""
    if metric_names.base(score.metric) not in metric_names.BINARY or metric_names.better(score.metric) is None:
        return None
    for declared in (block.get("chance", {}), None, CHANCES):
        if declared is None:
            labels = task.labels(score.test)
            guess = score.chance if score.chance is not None else 1 / len(labels) if labels else None
        else:
            guess = next((value for pattern, value in declared.items() if fnmatchcase(score.test, pattern)), None)
        if guess is not None:
            return float(guess)
    return None


def _means(rows: Sequence[Mapping[str, Any]], means: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Yield plain means over several tests of one model, for each metric that all have; tests count as independent samples.

    A mean is kept only if the model has all tests that any other model of the import has for it (see `_finished`).
    """
    for name, tests in means.items():
        matching = [row for row in rows if _fits(row["test"], tests)]
        for metric in dict.fromkeys(row["metric"] for row in matching):
            parts = [row for row in matching if row["metric"] == metric]
            values, errors, sizes, chances = ([row[key] for row in parts] for key in ("value", "error", "n", "chance"))
            if None in values:
                continue
            error = None if None in errors else math.sqrt(sum(e * e for e in errors)) / len(errors)
            numbers = _numbers(sum(values) / len(values), error, None if None in sizes else sum(sizes))
            chance = None if None in chances else sum(chances) / len(chances)
            over = tuple(sorted(row["test"] for row in parts))
            yield {**parts[0], "test": name, "part_of": None, **numbers, "chance": chance, "over": over}


def _finished(rows: list[dict[str, Any]], block: Import) -> list[dict[str, Any]]:
    """Return the rows with each test's primary metric marked, and rows for chance; means over fewer tests than other means
    of the same name are left out, since they are not comparable."""
    whole: dict[tuple[str, str], tuple[str, ...]] = {}
    for row in rows:
        if "over" in row:
            key = (row["test"], row["metric"])
            whole[key] = max(whole.get(key, ()), row["over"], key=len)
    rows = [row for row in rows if "over" not in row or row["over"] == whole[row["test"], row["metric"]]]
    metrics: dict[str, set[str]] = {}
    for row in rows:
        metrics.setdefault(row["test"], set()).add(row["metric"])
    named = {row["test"]: row["metric"] for row in rows if row["primary"]}
    main = {test: _main(test, available, named.get(test), block) for test, available in metrics.items()}
    guesses: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        chance = row.pop("chance")
        row.pop("over", None)
        row["primary"] = row["metric"] == main[row["test"]]
        if row["primary"] and chance is not None and "chance" not in metrics[row["test"]]:
            guess = {**row, "metric": "chance", **_numbers(chance, 0.0, row["n"]), "better": None, "primary": False}
            guesses[tuple(row[key] for key in ("family", "step", "train", "recipe", "seed", "test", "shots"))] = guess
    return [*rows, *guesses.values()]


def _main(test: str, metrics: set[str], named: str | None, block: Import) -> str:
    """Return the primary metric of a test: by the study, else by the files, else by `metric_names`."""
    for pattern, metric in block.get("metrics", {}).items():
        if fnmatchcase(test, pattern) and metric in metrics:
            return metric
    return named or metric_names.preferred(test, metrics)


def _items(
    kept: Mapping[tuple[Any, ...], _Kept],
    models: Mapping[tuple[Any, ...], Model],
    scores: Sequence[Mapping[str, Any]],
    suite: str,
) -> Iterator[dict[str, Any]]:
    """Yield rows of `tables.ITEMS` for primary metrics, if all models of a test have the same rows."""
    read = {(row["test"], row["metric"]) for row in scores if row["primary"]}
    main = {key: entry for key, entry in kept.items() if (entry.score.test, entry.score.metric) in read}
    sets: dict[tuple[str, int | None], set[frozenset[str]]] = {}
    for entry in main.values():
        sets.setdefault((entry.score.test, entry.score.shots), set()).add(frozenset(entry.rows))
    for key, entry in main.items():
        if len(sets[entry.score.test, entry.score.shots]) == 1:
            keys = _keys(models[key], entry.score, suite) | {"metric": entry.score.metric}
            yield from (keys | {"id": id, "value": value} for id, value in entry.rows.items())


def described(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a reader of one release, each test with one metric, with the properties of the metric's name."""
    for row in rows:
        yield {**row, "primary": True, "better": metric_names.better(row["metric"]), "part_of": None, "tokens": None}


def with_tokens(
    rows: Iterable[Mapping[str, Any]], per_step: float | Mapping[str, float] | None
) -> list[dict[str, Any]]:
    """Return rows with pre-training tokens filled in where missing. per_step: tokens per step, of all families or of each."""

    def tokens_of(row: Mapping[str, Any]) -> float | None:
        step = per_step.get(row["family"]) if isinstance(per_step, Mapping) else per_step
        return row["tokens"] if row["tokens"] is not None or step is None else float(row["step"] * step)

    return [{**row, "tokens": tokens_of(row)} for row in rows]
