"""Gather the parts of a table into one file, with the keys of their paths as columns."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.evaluation import metrics
from workflow.storage import tables
from workflow.storage.files import json_object
from workflow.study import grid, token_axis

KEYS = {"scores": grid.CELL_KEYS, "histories": grid.MODEL_KEYS, "choices": grid.CHOICE_KEYS, "analysis": ["analysis"]}
KEYS |= {"items": grid.CELL_KEYS, "indicators": grid.BASE_KEYS, "pairs": ["cohort"]}
KEYS |= {name: ["cohort", "split"] for name in ("forecasts", "rankings", "importance")}
SCHEMAS = {"scores": tables.SCORES, "histories": tables.HISTORY, "choices": tables.CHOICES, "analysis": tables.ANALYSIS}
SCHEMAS |= {"items": tables.ITEMS, "indicators": tables.INDICATORS, "pairs": tables.PAIRS}
SCHEMAS |= {"forecasts": tables.FORECASTS, "rankings": tables.RANKINGS, "importance": tables.IMPORTANCE}

with job("gather", snakemake) as log:
    name = snakemake.params.table
    parts = [Path(part) for part in snakemake.input.parts]
    table = tables.gather(parts, KEYS[name], SCHEMAS[name])
    if name == "scores":
        pins = [json_object(Path(path)) | {"path": path} for path in snakemake.input.get("pins", [])]
        table = token_axis.with_tokens(table, snakemake.params.get("tokens", {}), pins)
    if name in ("scores", "items"):
        metrics.check_scores(table, [*KEYS[name], *grid.TEST_KEYS, "metric", *(["id"] if name == "items" else [])])
    log.info("%d rows from %d parts", len(table), len(parts))
    tables.save(table, Path(snakemake.output[0]))
