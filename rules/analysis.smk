"""From scores to tables, analyses, audits and recommendations."""

from workflow import registry
from workflow.analysis import analyses
from workflow.audit import checks
from workflow.forecasting import own_cohort
from workflow.study import token_axis
from workflow.training import missing_models


localrules:
    gather,
    slice,
    analyse,
    audit,
    recommend,


wildcard_constraints:
    table="scores|items|histories|indicators|analysis|choices|pairs|forecasts|rankings|importance",


RECOMMENDED = ["results/recommendations.parquet"] if STUDY["models"] or IMPORTED else []


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
            "histories", grid.MODEL_KEYS, MODELS[MODELS["recipe"] != "none"]
        ),
        "indicators": parts("indicators", grid.BASE_KEYS, grid.bases(STUDY)),
        "choices": parts("choices", grid.CHOICE_KEYS, CHOICES),
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
    shared = ["evidence", "curves", "declines", "extrapolation", "laws"]
    return content_hashes.of_code(
        f"analysis/analyses/{wildcards.analysis}",
        *(f"analysis/{name}" for name in shared),
        "statistics",
    )


rule gather:
    """Gather the parts of a table into one, keys as columns."""
    input:
        parts=table_parts,
        pins=token_pins,
    output:
        "results/{table}.parquet",
    log:
        "logs/gather/{table}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        table="{table}",
        tokens=tokens_seen,
    script:
        "../workflow/scripts/gather.py"


rule slice:
    """Gather the scores of one slice of a study: a task tuned on, untouched bases beside it, on one suite."""
    input:
        parts=slice_parts,
    output:
        "results/slices/train={train}/suite={suite}/scores.parquet",
    log:
        "logs/slice/train={train}/suite={suite}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        table="scores",
    script:
        "../workflow/scripts/gather.py"


rule analyse:
    """Make one analysis of all scored rows."""
    input:
        rows="results/items.parquet",
        imported=IMPORTED,
    output:
        "results/analyses/analysis={analysis}/part.parquet",
    log:
        "logs/analyse/{analysis}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        groups=STUDY["groups"],
        statistics=STUDY["statistics"],
        code=analysis_code,
    script:
        "../workflow/scripts/analyse.py"


rule audit:
    """Look for what makes a study's results untrustworthy."""
    input:
        scores="results/scores.parquet",
        analysis="results/analysis.parquet",
        predictions=parts("predictions", grid.PART_KEYS, PARTS),
        bases=MANIFESTS,
        tasks=PREPARED,
        released=IMPORTED_FILES,
        forecasting=FORECASTED,
        indicators=INDICATORS,
    output:
        "results/audit.parquet",
    log:
        "logs/audit.log",
    conda:
        "../envs/analysis.yaml"
    params:
        groups=STUDY["groups"],
        cohorts=COHORTS,
        indicators=STUDY["indicators"],
        holes=HOLES,
        code=content_hashes.of_code(
            "audit/inputs",
            *(f"audit/checks/{check}" for check in registry.modules(checks)),
        ),
    script:
        "../workflow/scripts/audit.py"


rule recommend:
    """Answer which base to tune for each task: scores, chances, regrets of picking by an indicator, in words."""
    input:
        rows="results/items.parquet",
        imported=IMPORTED,
        scores="results/scores.parquet",
        analysis="results/analysis.parquet",
        indicators=INDICATORS,
    output:
        table="results/recommendations.parquet",
        csv="results/tables/recommendations.csv",
        markdown="results/tables/recommendations.md",
    log:
        "logs/recommend.log",
    conda:
        "../envs/analysis.yaml"
    params:
        statistics=STUDY["statistics"],
        regret=STUDY["recommend"]["regret"],
        indicators=STUDY["indicators"],
        targets=own_cohort.questions(STUDY),
        benchmarks=BENCHMARKS,
        code=content_hashes.of_code(
            "analysis/recommendation",
            "analysis/best_base",
            "analysis/seed_variance",
            "analysis/evidence",
            "statistics",
        ),
    script:
        "../workflow/scripts/recommend.py"
