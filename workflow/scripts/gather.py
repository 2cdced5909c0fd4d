"""Gather the parts of a table into one file, with the keys of their paths as columns."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.evaluation import metrics
from workflow.storage import tables
from workflow.storage.files import json_object
from workflow.study import grid, token_axis

KEYS = {"scores": grid.CELL_KEYS, "histories": grid.MODEL_KEYS, "choices": grid.CHOICE_KEYS, "analysis": ["analysis"]}
KEYS |= {"own_choices": grid.OWN_CHOICE_KEYS}
KEYS |= {"items": grid.CELL_KEYS, "indicators": grid.BASE_KEYS, "pairs": ["cohort"]}
KEYS |= {name: ["cohort", "split"] for name in ("forecasts", "rankings", "importance")}
SCHEMAS = {"scores": tables.SCORES, "histories": tables.HISTORY, "choices": tables.CHOICES, "analysis": tables.ANALYSIS}
SCHEMAS |= {"own_choices": tables.CHOICES}
SCHEMAS |= {"items": tables.ITEMS, "indicators": tables.INDICATORS, "pairs": tables.PAIRS}
SCHEMAS |= {"forecasts": tables.FORECASTS, "rankings": tables.RANKINGS, "importance": tables.IMPORTANCE}

CHECKED = {"scores": [*grid.TEST_KEYS, "metric"], "items": [*grid.TEST_KEYS, "metric", "id"]}

with job("gather", snakemake) as log:
    name = snakemake.params.table
    parts, keys = [Path(part) for part in snakemake.input.parts], KEYS[name]
    pieces = tables.pieces(parts, keys, SCHEMAS[name])
    if name == "scores":
        pins = [json_object(Path(path)) | {"path": path} for path in snakemake.input.get("pins", [])]
        table = tables.gather(parts, keys, SCHEMAS[name])
        pieces = iter([token_axis.with_tokens(table, snakemake.params.get("tokens", {}), pins)])
    if name in CHECKED:
        pieces = metrics.checked(
            pieces, [*keys, *CHECKED[name]], lambda number: tables.gather([parts[number]], keys, SCHEMAS[name])
        )
    rows = tables.save_pieces(pieces, tables.keyed(keys, SCHEMAS[name]), Path(snakemake.output[0]))
    log.info("%d rows from %d parts", rows, len(parts))
