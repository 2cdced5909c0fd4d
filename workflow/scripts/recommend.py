"""Recommend a base to fine-tune for each task of a study."""

from workflow.jobs.job import job

from pathlib import Path

import pandas as pd

from workflow.analysis import best_base, recommendation
from workflow.analysis.evidence import Evidence
from workflow.indicators import aggregation
from workflow.statistics import Resampling
from workflow.storage import files, tables
from workflow.study import grid, token_axis


def seconds(paths: list[str]) -> list[float]:
    """Wall time of each job in seconds; an empty list if any was not measured."""
    measured = [float(pd.read_csv(path, sep="\t")["s"].iloc[-1]) for path in paths if Path(path).is_file()]
    return measured if len(measured) == len(paths) else []


with job("recommend", snakemake) as log:
    found, asked, how = snakemake.input, snakemake.params, Resampling(**snakemake.params.statistics)
    reported = tables.gather([Path(part) for part in found.imported], grid.CELL_KEYS, tables.SCORES)
    levels = best_base.uncertain(Evidence(Path(found.rows), tables.frame(reported)).levels)
    scores, analysis = tables.read(Path(found.scores)), tables.read(Path(found.analysis))
    measured = tables.read(Path(found.indicators[0])) if found.indicators else pd.DataFrame()
    values = aggregation.values(measured, asked.indicators, scores)
    picks = {
        name: {(family, int(step)): value for family, step, value in own[["family", "step", "value"]].to_numpy()}
        for name, own in values.groupby("indicator", sort=False)
    }
    measured_jobs = {name: seconds(paths) for name, paths in asked.benchmarks.items()}
    costs = recommendation.costs(asked.indicators, measured_jobs, max(1, len(asked.benchmarks["measure"])))
    questions = best_base.questions(levels, asked.targets, how)
    rows = list(recommendation.recommend(questions, picks, costs, analysis, asked.regret, how, asked.not_chosen))
    tokens = token_axis.seen(scores)
    rows = [row | {"statement": token_axis.annotated(row["statement"], tokens, row.get("family"))} for row in rows]
    log.info("%d questions, %d rows", len(questions), len(rows))
    tables.write(rows, tables.RECOMMENDATIONS, Path(snakemake.output.table))
    read = tables.read(Path(snakemake.output.table))
    files.write_text(read.to_csv(index=False), Path(snakemake.output.csv))
    files.write_text(recommendation.page(read), Path(snakemake.output.markdown))
