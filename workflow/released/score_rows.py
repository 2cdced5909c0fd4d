"""The runs of an import as rows of a study's tables: each score checked and taken once, with rows, chance and means.

What is stated nowhere is derived: rows from the standard error of a share, what guessing gives from the number of answers. What
is to be known of a file (its name says something else, another file has the same scores) is a row of `tables.RELEASED`.
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
from workflow.released.runs import Model, Run, Score, files, model_of, place_of, said, skipped

Z = NormalDist().inv_cdf(0.975)  # intervals of imported scores are of 95 %, normal approximation
LONGEST = 200  # characters of a test's or metric's name
ROUNDED = 0.02  # of a row: what a number of rows made from a standard error may be off

# What guessing gives on common benchmarks, by the number of answers; where rows have different numbers, by most of them.
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
class Adopted:
    """What an import gives: rows of `tables.SCORES` and `tables.ITEMS` with the keys of their cells, of `tables.RELEASED`;
    fields: of each family."""

    scores: list[dict[str, Any]]
    items: list[dict[str, Any]]
    files: list[dict[str, Any]]
    fields: dict[str, dict[str, str]]


# What it holds


def check(place: str, score: Score) -> None:
    """StudyError for a score whose names or numbers no harness writes."""
    for what, text in (("test", score.test), ("metric", score.metric)):
        if not isinstance(text, str) or not text.strip() or not text.isprintable() or len(text) > LONGEST:
            raise StudyError(
                f"{place}: found {shown(text)} as the name of a {what}, expected text of at most {LONGEST} printable characters"
            )
    what = f"{place}: {score.metric} of {score.test}"
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
    """The number of rows behind a score: as stated, else from the standard error of a share, p(1 - p) / error² + 1."""
    if score.n is not None or not score.error or metric_names.base(score.metric) not in metric_names.BINARY:
        return score.n
    n = score.value * (1 - score.value) / score.error**2 + 1
    return round(n) if abs(n - round(n)) < ROUNDED * max(1.0, n / 1000) else None


def adopted(block: Mapping[str, Any], reader: ModuleType, suite: str, root: str | None = None) -> Adopted:
    """All files of an import.

    Errors: StudyError for the first file that is not as the format has it, saying how many more are refused.
    """
    folder = place_of(block, root)
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
        more = f"; {len(refused) - 1} more files are refused, too" if len(refused) > 1 else ""
        raise StudyError(f"{refused[0]}{more} (`skip` of the import leaves files out)")
    _check_patterns(runs, block)
    return _together(runs, notes, block, suite)


def _sound(run: Run, name: str, block: Mapping[str, Any]) -> tuple[Run, Model, list[tuple[str, str]]]:
    """A run with the scores that the study takes, each checked, what it is of, and what is to be known of its file."""
    model, differing = model_of(run, name, block)
    own = _scaled(run, block)
    only, shots = block.get("tests"), block.get("shots")
    scores = [score for score in own.scores if only is None or _fits(score.test, only)]
    scores = [replace(score, shots=shots) if score.shots is None else score for score in scores]
    for score in scores:
        check(run.place, score)
        if score.shots is None:
            what = f"{run.place}: {score.metric} of {score.test}"
            raise StudyError(f"{what}: states no number of demonstrations; expected one, or `shots` of the import")
    endless = [score for score in scores if not math.isfinite(score.value)]
    remarks = [("mismatch", text) for text in (*differing, *_shots(scores, name))]
    remarks += [("other", text) for text in run.remarks]
    if endless:
        first = endless[0]
        remarks.append(
            ("other", f"{len(endless)} of its scores are no finite number, {first.metric} of {first.test} first")
        )
    return replace(own, scores=tuple(scores)), model, remarks


def _check_patterns(runs: Sequence[tuple[str, Run, Model]], block: Mapping[str, Any]) -> None:
    """StudyError for a pattern of tests that no test fits, and for a mean with the name of a test."""
    tests = {score.test for _, run, _ in runs for score in run.scores}
    named = [
        (f"{key}/{name}", pattern)
        for key in ("means", "parts")
        for name, patterns in block.get(key, {}).items()
        for pattern in (*patterns, *([name] if key == "parts" else []))
    ]
    named += [(key, pattern) for key in ("tests", "metrics", "chance") for pattern in block.get(key, ())]
    known = tests | set(block.get("means", ()))
    for key, pattern in named:
        if not any(fnmatchcase(test, pattern) for test in known):
            some = ", ".join(sorted(known)[:8]) or "none"
            raise StudyError(f"config.yaml: imports: {key}: no test fits {pattern!r}; the files have {some}")
    for name in sorted(set(block.get("means", ())) & tests):
        raise StudyError(
            f"config.yaml: imports: means/{name}: the files have a test of this name; expected another one"
        )


def _shots(scores: Sequence[Score], name: str) -> list[str]:
    """What a file's name says of demonstrations other than the file."""
    stated, spoken = {score.shots for score in scores}, said(name, "shots")
    if not spoken or stated & set(spoken):
        return []
    return [f"its name says {spoken[-1]} shots, the file {', '.join(map(str, sorted(stated)))}"]


def _scaled(run: Run, block: Mapping[str, Any]) -> Run:
    """A run with metrics that the study says are percentages as shares."""
    percent = block.get("percent", ())
    if not percent:
        return run

    def share(score: Score) -> Score:
        if not _fits(score.metric, percent) or not isinstance(score.value, int | float):
            return score
        return replace(score, value=score.value / 100, error=None if score.error is None else score.error / 100)

    return replace(run, scores=tuple(map(share, run.scores)))


# All of it together

Key = tuple[Any, ...]  # of a model, then test, shots, metric


@dataclass
class _Kept:
    """A score that is taken, with the file and run that it is from."""

    file: str
    run: Run
    score: Score

    @property
    def rows(self) -> Mapping[str, float]:
        """Its value on each row, none where rows are not known."""
        return self.run.rows.get((self.score.test, self.score.shots, self.score.metric), {})


def _together(
    runs: Sequence[tuple[str, Run, Model]],
    notes: dict[str, list[tuple[str, str]]],
    block: Mapping[str, Any],
    suite: str,
) -> Adopted:
    """The scores of all runs, each once: of a score that is there several times the latest run's."""
    kept: dict[Key, _Kept] = {}
    models: dict[Key, Model] = {}
    again: dict[tuple[str, str], list[tuple[Score, Score]]] = {}
    for name, run, model in sorted(runs, key=lambda own: (own[1].date, own[0])):
        for score in run.scores:
            key = (*model[:6], score.test, score.shots, score.metric)
            if key in kept and kept[key].file == name:
                what = f"{score.metric} of {score.test} with {score.shots} shots of {model.family} at step {model.step}"
                raise StudyError(
                    f"{run.place}: {what} is there twice, first in {kept[key].run.place}; expected each once"
                )
            if key in kept:
                again.setdefault((name, kept[key].file), []).append((score, kept[key].score))
            kept[key], models[key] = _Kept(name, run, score), model
    dates = {name: run.date for name, run, _ in runs}
    for (later, earlier), pairs in again.items():
        why = "the later file" if dates[later] > dates[earlier] else "the last by name, as no date tells the later one"
        notes.setdefault(later, []).append(("repeated", _repeated(earlier, pairs, why)))
    scores = _rows(kept, models, block, suite)
    counts, stated = Counter(own.file for own in kept.values()), _stated(runs)
    listed = [
        row
        for name in sorted({*notes, *stated})
        for row in _listed(name, stated.get(name, {}), counts[name], notes.get(name, []))
    ]
    families = {model.family: dict(model.fields) for model in models.values()}
    return Adopted(scores, list(_items(kept, models, scores, suite)), listed, families)


def _repeated(earlier: str, pairs: Sequence[tuple[Score, Score]], why: str) -> str:
    """What is to be known of scores that another file has as well. why: these are taken."""
    other = [
        (abs(a.value - b.value), a)
        for a, b in pairs
        if a.value != b.value and not (a.value != a.value and b.value != b.value)
    ]
    text = f"{len(pairs)} of its scores are in {earlier} as well"
    if not other:
        return f"{text}, all with the same value"
    most, score = max(other, key=lambda own: own[0] / (own[1].error or 1.0))
    apart = f" ({most / score.error:.1f} standard errors)" if score.error else ""
    off = f"{score.metric} of {score.test} by {most:.4f}{apart}"
    return f"{text}, {len(other)} with another value, {off}; those of this file are taken, {why}"


def _stated(runs: Iterable[tuple[str, Run, Model]]) -> dict[str, dict[str, Any]]:
    """What each file says it is of; of several models the first."""
    found: dict[str, dict[str, Any]] = {}
    for name, run, model in runs:
        shots = ", ".join(str(number) for number in sorted({score.shots for score in run.scores} - {None}))
        facts = {
            "model": "@".join(part for part in (run.model, run.revision) if part),
            "family": model.family,
            "step": model.step,
        }
        found.setdefault(name, facts | {"tokens": model.tokens, "seed": model.seed, "shots": shots})
    return found


def _listed(
    name: str, facts: Mapping[str, Any], count: int, notes: Sequence[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    """The rows of a file: one for each remark, or one without."""
    for remark, evidence in notes or [(None, None)]:
        yield {"file": name, **facts, "scores": count, "remark": remark, "evidence": evidence}


def _rows(
    kept: Mapping[tuple[Any, ...], _Kept], models: Mapping[tuple[Any, ...], Model], block: Mapping[str, Any], suite: str
) -> list[dict[str, Any]]:
    """Rows of `tables.SCORES` with the keys of their cells: scores, means over tests, what guessing gives."""
    counts = _counts(kept.values())
    means = block.get("means", {})
    wholes = {**means, **block.get("parts", {})}
    rows: list[dict[str, Any]] = []
    places: dict[Key, list[dict[str, Any]]] = {}
    for key, own in kept.items():
        score = own.score
        n = rows_of(score) or counts.get((score.test, score.metric)) or counts.get((score.test, None))
        value = float(score.value) if math.isfinite(score.value) else None
        part = score.part_of or next((name for name, of in wholes.items() if _fits(score.test, of)), None)
        row = _keys(models[key], score, suite) | {"metric": score.metric, "tokens": models[key].tokens}
        row |= _numbers(value, _error(score, n), n) | {"part_of": part, "chance": _chance(score, block)}
        row["primary"] = score.primary
        rows.append(row | {"better": score.better or metric_names.better(score.metric)})
        places.setdefault((*key[:6], score.shots), []).append(rows[-1])
    for there in places.values():
        rows += _means(there, means)
    return _finished(rows, block)


def _keys(model: Model, score: Score, suite: str) -> dict[str, Any]:
    """The keys of a score's cell and test."""
    own = {key: getattr(model, key) for key in ("family", "step", "train", "format", "recipe", "seed")}
    return own | {"suite": suite, "test": score.test, "test_format": "default", "shots": score.shots}


def _numbers(value: float | None, error: float | None, n: int | None) -> dict[str, Any]:
    """Value, standard error, its interval of 95 %, rows."""
    error = None if error is None or not math.isfinite(error) else float(error)
    ends = (None, None) if error is None or value is None else (value - Z * error, value + Z * error)
    return {"value": value, "error": error, "low": ends[0], "high": ends[1], "n": n}


def _error(score: Score, n: int | None) -> float | None:
    """The standard error as stated, else that of a share over its rows, as harnesses make it."""
    if score.error is not None or n is None or n < 2 or metric_names.base(score.metric) not in metric_names.BINARY:
        return score.error
    return math.sqrt(max(0.0, score.value * (1 - score.value)) / (n - 1)) if math.isfinite(score.value) else None


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _counts(kept: Iterable[_Kept]) -> dict[tuple[str, str | None], int]:
    """The rows of each test and metric, and of each test, where all files that tell agree: for scores that do not tell."""
    found: dict[tuple[str, str | None], set[int]] = {}
    for own in kept:
        if n := rows_of(own.score):
            for metric in (own.score.metric, None):
                found.setdefault((own.score.test, metric), set()).add(n)
    return {key: min(numbers) for key, numbers in found.items() if len(numbers) == 1}


def _chance(score: Score, block: Mapping[str, Any]) -> float | None:
    """What guessing gives: as the study declares it, as the file's rows or choices tell, by the task's labels, as known of the
    benchmark; None where nobody can tell, and for metrics that guessing has no part in."""
    if metric_names.base(score.metric) not in metric_names.BINARY or metric_names.better(score.metric) is None:
        return None
    for declared in (block.get("chance", {}), None, CHANCES):
        if declared is None:
            labels = task.labels(score.test)
            own = score.chance if score.chance is not None else 1 / len(labels) if labels else None
        else:
            own = next((value for pattern, value in declared.items() if fnmatchcase(score.test, pattern)), None)
        if own is not None:
            return float(own)
    return None


def _means(rows: Sequence[Mapping[str, Any]], means: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Plain means over several tests of one model, for each metric that all of them have; tests are independent samples.

    A mean is made only where the model has all tests that any pattern finds for it (see `_finished`).
    """
    for name, tests in means.items():
        own = [row for row in rows if _fits(row["test"], tests)]
        for metric in dict.fromkeys(row["metric"] for row in own):
            parts = [row for row in own if row["metric"] == metric]
            values, errors, sizes, chances = ([row[key] for row in parts] for key in ("value", "error", "n", "chance"))
            if None in values:
                continue
            error = None if None in errors else math.sqrt(sum(e * e for e in errors)) / len(errors)
            numbers = _numbers(sum(values) / len(values), error, None if None in sizes else sum(sizes))
            chance = None if None in chances else sum(chances) / len(chances)
            over = tuple(sorted(row["test"] for row in parts))
            yield {**parts[0], "test": name, "part_of": None, **numbers, "chance": chance, "over": over}


def _finished(rows: list[dict[str, Any]], block: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows with the metric that each test is read in marked, and a row for what guessing gives; means over fewer tests
    than others of the import are left out, since they are of something else."""
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
    main = {test: _main(test, own, named.get(test), block) for test, own in metrics.items()}
    guesses: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        chance = row.pop("chance")
        row.pop("over", None)
        row["primary"] = row["metric"] == main[row["test"]]
        if row["primary"] and chance is not None and "chance" not in metrics[row["test"]]:
            guess = {**row, "metric": "chance", **_numbers(chance, 0.0, row["n"]), "better": None, "primary": False}
            guesses[tuple(row[key] for key in ("family", "step", "train", "recipe", "seed", "test", "shots"))] = guess
    return [*rows, *guesses.values()]


def _main(test: str, metrics: set[str], named: str | None, block: Mapping[str, Any]) -> str:
    """The metric that a test is read in: what the study says, else what the files say, else what `metric_names` does."""
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
    """Rows of `tables.ITEMS` of the metrics that tests are read in, where all models of a test have the same rows."""
    read = {(row["test"], row["metric"]) for row in scores if row["primary"]}
    main = {key: own for key, own in kept.items() if (own.score.test, own.score.metric) in read}
    sets: dict[tuple[str, int | None], set[frozenset[str]]] = {}
    for own in main.values():
        sets.setdefault((own.score.test, own.score.shots), set()).add(frozenset(own.rows))
    for key, own in main.items():
        if len(sets[own.score.test, own.score.shots]) == 1:
            keys = _keys(models[key], own.score, suite) | {"metric": own.score.metric}
            yield from (keys | {"id": id, "value": value} for id, value in own.rows.items())


def described(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of a reader that knows its release by heart, each test in one metric, with what the metrics' names say."""
    for row in rows:
        yield {**row, "primary": True, "better": metric_names.better(row["metric"]), "part_of": None, "tokens": None}


def with_tokens(
    rows: Iterable[Mapping[str, Any]], per_step: float | Mapping[str, float] | None
) -> list[dict[str, Any]]:
    """Rows with the tokens of their steps where these are not known yet. per_step: of all families, or of each."""

    def own(row: Mapping[str, Any]) -> float | None:
        step = per_step.get(row["family"]) if isinstance(per_step, Mapping) else per_step
        return row["tokens"] if row["tokens"] is not None or step is None else float(row["step"] * step)

    return [{**row, "tokens": own(row)} for row in rows]
