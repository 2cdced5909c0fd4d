"""CPU time and peak memory of what follows predictions, by the size of a study: gather, analyse, audit, recommend, find, draw.

Run from the repository's root: `PYTHONPATH=. python benchmarks/tail.py --checkpoints 2 6 20`. A checkpoint has 18 tuned
models (three prompt formats, two recipes, three seeds) with 30 tests each, and its base with 90: 630 cells of --rows rows.
--only NAME ... runs some of the steps. No model, no network; some hundred MB of disk for each ten checkpoints.
Prints a Markdown table. Each step is the workflow's script in a forked process, with the inputs and parameters of its rule.

Predictions are invented: choices that are right more often the later the checkpoint, texts of a few words.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import multiprocessing
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from workflow import registry, task
from workflow.analysis import analyses
from workflow.evaluation import metric_names, metrics
from workflow.storage import files, tables
from workflow.study import config as configs
from workflow.study import grid

ROOT = Path(__file__).parents[1]
TRAIN, SUITE, FORMATS, RECIPES, SEEDS = "mnli", "benchmarks", ("default", "io", "instruct"), ("full", "lora"), (0, 1, 2)
TESTS = (
    "arc_challenge", "arc_easy", "boolq", "cnn_dailymail", "gpt3_nli", "hellaswag", "hotpot_qa", "hotpot_qa_context",
    "mini_facts", "mnli", "mnli_mismatched", "nq_open", "nq_open_context", "openbookqa", "paws", "piqa", "qqp", "rte", "sciq",
    "sciq_choice", "social_iqa", "stsb", "trivia_qa", "trivia_qa_context", "tweet_qa", "two_wiki_multihop_qa",
    "two_wiki_multihop_qa_context", "winogrande", "xlsum_english", "xsum",
)  # fmt: skip
METHODS = {name: str(task.method(name)) for name in TESTS}
SUMMARIES = ("datasets", "families", "performance_difference")
FIGURES = ("curves", "differences")
Row = Mapping[str, Any]


def config(checkpoints: int, rows: int) -> dict[str, Any]:
    """The study's config."""
    shape = {"vocabulary": 512, "hidden": 32, "intermediate": 64, "layers": 2, "heads": 2}
    saved = [1000 * (number + 1) for number in range(checkpoints)]
    pretraining = {"corpus": "miniworld", "steps": saved[-1], "save": saved, **shape}
    return {
        "families": {"invented": {"source": "trained", "steps": saved, "pretraining": pretraining}},
        "recipes": {"full": {"examples": 100}, "lora": {"method": "lora", "examples": 100}},
        "models": [{"train": [TRAIN], "formats": list(FORMATS), "recipes": list(RECIPES), "seeds": list(SEEDS)}],
        "suites": {SUITE: {"tests": list(TESTS), "formats": list(FORMATS), "shots": [0], "limit": rows}},
        "groups": {"home": {TRAIN: [TRAIN]}, "away": {TRAIN: [name for name in TESTS if name != TRAIN][:5]}},
    }


class Study:
    """A study in the working directory, with invented results."""

    def __init__(self, checkpoints: int, rows: int) -> None:
        """Invent everything up to scores."""
        self.rows = rows
        self.settings: dict[str, Any] = {"imports": {}, "cohorts": {}} | configs.validated(config(checkpoints, rows))
        self.parts = grid.parts(self.settings).to_dict("records")
        self.texts = {name: _texts(name, rows) for name in TESTS}
        self.cells = 0
        for base in grid.bases(self.settings).to_dict("records"):
            self._base(base)
        for name in TESTS:
            self._task(name)
        for number, row in enumerate(self.parts):
            self._part(row, np.random.default_rng(number))

    def paths(self, folder: str) -> list[str]:
        """Parts of a table."""
        return [f"results/{folder}/{grid.path(row, grid.PART_KEYS)}/part.parquet" for row in self.parts]

    @property
    def bases(self) -> list[str]:
        """Manifests of all bases."""
        return [
            f"resources/bases/{grid.path(row, grid.BASE_KEYS)}/base.json"
            for row in grid.bases(self.settings).to_dict("records")
        ]

    @property
    def tasks(self) -> list[str]:
        """Prepared rows of all tests."""
        return [f"resources/tasks/{name}.parquet" for name in TESTS]

    def _base(self, row: Row) -> None:
        hashed = hashlib.sha256(str(row["step"]).encode()).hexdigest()
        manifest = {
            **row, "source": "trained", "repo": None, "revision": None, "path": "none", "dates": {},
            "files": {"model.safetensors": {"bytes": 1000, "sha256": hashed}},
        }  # fmt: skip
        path = Path(f"resources/bases/{grid.path(row, grid.BASE_KEYS)}/base.json")
        files.write_json({key: own for key, own in manifest.items() if key not in ("path", "dates")}, path)
        files.write_json({"path": "none", "dates": {}}, path.with_name("place.json"))

    def _task(self, name: str) -> None:
        own, read = self.texts[name], task.load(name)
        made = [
            {
                "id": f"{split}/{number}", "split": split, "fields": {"text": f"{split} text {number} of {name}"},
                "choices": own["choices"][number], "leads": [], "answer": own["reference"][number], "gold": own["gold"][number],
                "turns": [],
            }
            for split in (read.test, read.train)
            if split
            for number in range(self.rows)
        ]  # fmt: skip
        tables.write(made, tables.EXAMPLES, Path(f"resources/tasks/{name}.parquet"))

    def _part(self, row: Row, generator: np.random.Generator) -> None:
        """Predictions, items and scores of one model: of a tuned one in the format that it was tuned in."""
        formats = FORMATS if row["recipe"] == "none" else (row["format"],)
        skill = 0.2 + 0.1 * np.log1p(row["step"] / 1000) + (0.3 if row["train"] == TRAIN else 0.0)
        place = grid.path(row, grid.PART_KEYS)
        self.cells += len(TESTS) * len(formats)
        if Path(f"results/scores/{place}/part.parquet").is_file():
            return
        cells = [
            self._cell(name, format, skill, generator) for name, format in itertools.product(TESTS, sorted(formats))
        ]
        facts = {key: str(own) for key, own in row.items()} | {"suite_settings": self.settings["suites"][SUITE]}
        facts |= {"base": {"family": row["family"], "step": row["step"]}, "adapters": None}
        tables.save(
            pa.concat_tables(cell[0] for cell in cells), Path(f"results/predictions/{place}/part.parquet"), **facts
        )
        tables.save(
            pa.concat_tables(item for cell in cells for item in cell[1]),
            Path(f"results/items/{place}/part.parquet"),
            **facts,
        )
        scores = [score for cell in cells for score in cell[2]]
        tables.write(scores, tables.SCORES, Path(f"results/scores/{place}/part.parquet"), **facts)

    def _cell(
        self, name: str, format: str, skill: float, generator: np.random.Generator
    ) -> tuple[pa.Table, list[pa.Table], list[dict[str, Any]]]:
        """Predictions, items and scores of a model on one test."""
        own, rows, method = self.texts[name], self.rows, METHODS[name]
        right = generator.random(rows) < 1 - 1 / (1.5 + skill)
        wide = len(own["choices"][0]) if method in ("label", "rank") else int(method == "answer")
        logprobs = generator.normal(-5, 1, (rows, wide))
        if wide > 1:
            best = np.where(right, own["gold"], (np.array(own["gold"]) + 1) % wide)
            logprobs[np.arange(rows), best] = -0.5
            output = [choices[place] for choices, place in zip(own["choices"], best, strict=True)]
        else:
            output = [text if hit else "another" for text, hit in zip(own["reference"], right, strict=True)]
        columns = {
            "test": [name] * rows, "test_format": [format] * rows, "shots": [0] * rows, "id": own["id"],
            "prompt_sha256": own["hashes"], "prompt_tokens": own["prompt_tokens"], "shots_used": [0] * rows,
            "shown": [[]] * rows, "truncated": [False] * rows, "cut_tokens": [0] * rows, "spanning": [False] * rows,
            "output": output, "reference": own["reference"], "choices": own["choices"], "gold": own["gold"],
            "logprobs": list(logprobs), "candidate_tokens": [[3] * wide] * rows,
            "output_tokens": [None if wide else 4] * rows, "priors": [[-1.0] * wide if method == "label" else []] * rows,
            "free_output": [None] * rows,
        }  # fmt: skip
        where = {"test": name, "test_format": format, "shots": 0}
        items, scores = [], []
        main = metric_names.PRIMARY[method]
        for metric in metrics.applicable(metrics.method(task.load(name), "score"), tables.PREDICTIONS.names):
            if isinstance(metrics.METRICS[metric], metrics.PerRow):
                value = 1 / wide if metric == "chance" else right * generator.uniform(0.5, 1, rows)
                values = np.broadcast_to(right if metric == main and wide else value, rows).astype(float)
                items.append(metrics._items(where, metric, pd.Series(own["id"]), values))
                found = vars(metrics.mean_of(values, 0.95))
                facts = {"metric": metric, "primary": metric == main, "better": metric_names.better(metric)}
                scores.append(where | facts | found)
        return pa.table(columns, schema=tables.PREDICTIONS), items, scores


def _texts(name: str, rows: int) -> dict[str, list[Any]]:
    """What all models' predictions of a test have in common."""
    generator, method = np.random.default_rng(len(name)), METHODS[name]
    words = [f"{name}{number}" for number in range(50)]
    labels = list(task.load(name).labels)
    answers = [" ".join(generator.choice(words, 4)) for _ in range(rows)]
    choices: list[list[str]] = [[] for _ in range(rows)]
    gold: list[int | None] = [None] * rows
    if method in ("label", "rank"):
        choices = [labels or [f"{text} {letter}" for letter in "abcd"] for text in answers]
        gold = [int(place) for place in generator.integers(len(choices[0]), size=rows)]
        answers = [own[place] for own, place in zip(choices, gold, strict=True)]
    elif method == "answer":
        choices = [[text] for text in answers]
    return {
        "id": [f"{task.load(name).test}/{number}" for number in range(rows)],
        "reference": answers, "choices": choices, "gold": gold,
        "prompt_tokens": [int(own) for own in generator.integers(20, 200, rows)],
        "hashes": [hashlib.sha256(f"{name} {number}".encode()).hexdigest() for number in range(rows)],
    }  # fmt: skip


class Named(list):  # type: ignore[type-arg]  # as Snakemake's own
    """Files of a job, by place and by name."""

    def __init__(self, *unnamed: Any, **named: Any) -> None:
        """A name may have one file or several."""
        super().__init__(
            [*unnamed, *(path for own in named.values() for path in (own if isinstance(own, list) else [own]))]
        )
        vars(self).update(named)

    def __getitem__(self, key: Any) -> Any:
        """A file by its place or name."""
        return vars(self)[key] if isinstance(key, str) else super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Files of a name."""
        return vars(self).get(key, default)

    def items(self) -> Any:
        """Names with their files."""
        return vars(self).items()


def job(rule: str, input: Named, output: Named, config: Row, wildcards: Row | None = None, **params: Any) -> Named:
    """What Snakemake gives a script."""
    logged = Named(f"logs/{rule}.log")
    shared = {"config": config, "resources": {}, "threads": 1}
    return Named(
        log=logged, input=input, output=output, wildcards=Named(**(wildcards or {})), params=Named(**params), **shared
    )


def steps(study: Study) -> Iterator[tuple[str, str, Named]]:
    """Name, script and job of each step, in the order of a run."""
    given, how = study.settings, study.settings["statistics"]
    cells, analysis = "results/scores.parquet", "results/analysis.parquet"

    def made(rule: str, input: Named, output: Named, wildcards: Row | None = None, **params: Any) -> Named:
        return job(rule, input, output, config(1, 1), wildcards, **params)

    for table in ("scores", "items"):
        output = Named(f"results/{table}.parquet")
        yield f"gather {table}", "gather", made("gather", Named(parts=study.paths(table)), output, table=table)
    for name in registry.modules(analyses):
        found = Named(rows="results/items.parquet", imported=[])
        output = Named(f"results/analyses/analysis={name}/part.parquet")
        yield (
            f"analyse {name}",
            "analyse",
            made("analyse", found, output, {"analysis": name}, groups=given["groups"], statistics=how, averaged=[]),
        )
    found = Named(parts=[f"results/analyses/analysis={name}/part.parquet" for name in registry.modules(analyses)])
    yield "gather analysis", "gather", made("gather", found, Named(analysis), table="analysis")
    found = Named(
        scores=cells, analysis=analysis, predictions=study.paths("predictions"), bases=study.bases, tasks=study.tasks,
        released=[], forecasting=[], indicators=[], adopted=[],
    )  # fmt: skip
    params: dict[str, Any] = {"groups": given["groups"], "cohorts": {}, "indicators": {}, "holes": []}
    yield "audit", "audit", made("audit", found, Named("results/audit.parquet"), **params)
    found = Named(rows="results/items.parquet", imported=[], scores=cells, analysis=analysis, indicators=[])
    output = Named(table="results/recommendations.parquet", csv="results/tables/r.csv", markdown="results/tables/r.md")
    params = {
        "regret": given["recommend"]["regret"],
        "indicators": {},
        "targets": {},
        "benchmarks": {"measure": []},
        "not_chosen": {},
    }
    yield "recommend", "recommend", made("recommend", found, output, statistics=how, **params)
    for name in SUMMARIES:
        found = Named(scores=cells, analysis=analysis, bases=study.bases, tasks=study.tasks)
        output = Named(csv=f"results/tables/{name}.csv", markdown=f"results/tables/{name}.md")
        yield f"summarise {name}", "summarise", made("summarise", found, output, {"summary": name}, study=given)
    found = Named(tables=[analysis, "results/audit.parquet", "results/recommendations.parquet", cells])
    params = {
        "level": how["level"],
        "groups": given["groups"],
        "targets": {},
        "cohorts": {},
        "rate_twins": grid.rate_twins(given),
    }
    yield "find", "find", made("find", found, Named("results/findings.parquet"), **params)
    for name in FIGURES:
        output = Named(pdf=f"results/figures/{name}.pdf", png=f"results/figures/{name}.png")
        yield (
            f"draw {name}",
            "draw",
            made(
                "draw",
                Named(scores=cells, analysis=analysis, further=[]),
                output,
                {"figure": name},
                overlays=given["overlays"],
            ),
        )


def measured(run: Callable[[], Any]) -> tuple[float, float]:
    """CPU seconds and peak memory in MB of a run in a process of its own.

    Errors: SystemExit where it failed.
    """
    queue = multiprocessing.get_context("fork").SimpleQueue()

    def inside() -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak of this process from here on
        start = time.process_time()
        run()
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        queue.put((time.process_time() - start, int(peak.split()[1]) / 1024))

    process = multiprocessing.get_context("fork").Process(target=inside)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"a step failed with exit code {process.exitcode}")
    return queue.get()


def run(script: str, snakemake: Named) -> None:
    """Run a script of the workflow as Snakemake does."""
    runpy.run_path(str(ROOT / "workflow" / "scripts" / f"{script}.py"), init_globals={"snakemake": snakemake})


def main(arguments: Sequence[str]) -> None:
    """Measure all steps in studies of several sizes and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[2, 6, 20])
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--only", nargs="+", help="steps by the beginnings of their names; the others must have run")
    parser.add_argument("--folder", type=Path, help="keeps the studies; what is there is not made again")
    options = parser.parse_args(arguments)
    print("| step | cells | CPU s | peak MB |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        for checkpoints in options.checkpoints:
            place = (options.folder or Path(scratch)) / str(checkpoints)
            place.mkdir(parents=True, exist_ok=True)
            with contextlib.chdir(place):
                _measure(Study(checkpoints, options.rows), options.only or [""])


def _measure(study: Study, only: Sequence[str]) -> None:
    for name, script, snakemake in steps(study):
        if name.startswith(tuple(only)):
            for path in snakemake.output:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            seconds, peak = measured(lambda script=script, own=snakemake: run(script, own))
            print(f"| {name} | {study.cells} | {seconds:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
