"""Inputs and parameters of the rules in analysis.smk."""

from workflow import registry
from workflow.analysis import analyses
from workflow.audit import checks
from workflow.forecasting import own_cohort
from workflow.study import token_axis
from workflow.training import missing_models

RECOMMENDED = (
    ["results/recommendations.parquet"]
    if STUDY["models"] or STUDY["adopted"] or IMPORTED
    else []
)


# What Snakemake measured of the jobs that indicators are measured in, by suite where they are scores.
UNTOUCHED = PARTS[PARTS["recipe"] == "none"]
BENCHMARKS = {
    "measure": [
        f"results/benchmarks/measure/{grid.path(row, grid.BASE_KEYS)}.tsv"
        for row in grid.bases(STUDY).to_dict("records")
    ]
} | {
    suite: [
        f"results/benchmarks/predict/{grid.path(row, grid.PART_KEYS)}.tsv"
        for row in UNTOUCHED[UNTOUCHED["suite"] == suite].to_dict("records")
    ]
    for suite in STUDY["suites"]
}


# Bases that a selection has not chosen so far: `task/recipe` -> number.
NOT_CHOSEN = selection.counted(LEFT)


def table_parts(wildcards):
    """The parts that a gathered table is made of."""
    return {
        "scores": parts("scores", grid.PART_KEYS, PARTS) + IMPORTED,
        "items": parts(
            "items",
            grid.PART_KEYS,
            missing_models.without(PARTS, HOLES, missing_models.LINE_KEYS),
        )
        + IMPORTED_ROWS,
        "histories": parts(
            "histories",
            grid.MODEL_KEYS,
            MODELS[~MODELS["recipe"].isin(["none", *STUDY["adopted"]])],
        ),
        "indicators": parts("indicators", grid.BASE_KEYS, grid.bases(STUDY)),
        "choices": parts("choices", grid.CHOICE_KEYS, CHOICES),
        "own_choices": parts("own_choices", grid.OWN_CHOICE_KEYS, OWN_CHOICES),
        "analysis": [
            f"results/analyses/analysis={name}/part.parquet"
            for name in registry.modules(analyses)
            if len(PARTS) or IMPORTED
        ],
        "pairs": [f"results/pairs/cohort={name}/part.parquet" for name in COHORTS],
    }.get(
        wildcards.table,
        [
            f"results/{wildcards.table}/{grid.path(row, list(row))}/part.parquet"
            for row in SPLITS
        ],
    )


def tokens_seen(wildcards):
    """The tokens of the bases' steps as far as the config tells, for the table of scores."""
    return token_axis.of_study(STUDY) if wildcards.table == "scores" else {}


def token_pins(wildcards):
    """What is pinned of bases on the hub, whose revisions may be named by their tokens, for the table of scores."""
    return BASE_PINS if wildcards.table == "scores" else []


def slice_parts(wildcards):
    """The scores of the models tuned on one task, and of their bases, on one suite."""
    meant = grid.slice_of(STUDY, wildcards.train, wildcards.suite)
    return parts("scores", grid.PART_KEYS, meant)


def analysis_code(wildcards):
    """What an analysis does, and what it shares with others."""
    shared = [
        "evidence",
        "curves",
        "declines",
        "extrapolation",
        "laws",
        "scored_rows",
        "seed_variance",
    ]
    return content_hashes.of_code(
        f"analysis/analyses/{wildcards.analysis}",
        *(f"analysis/{name}" for name in shared),
        "statistics",
    )
