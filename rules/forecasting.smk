"""From cohorts of bases with indicators and tuned scores to what the indicators forecast."""

from workflow.forecasting import leaderboards, own_cohort, settings

COHORTS = {
    name: settings.table(name, block) for name, block in STUDY["cohorts"].items()
}
SPLITS = [
    {"cohort": name, "split": split}
    for name, block in STUDY["cohorts"].items()
    for split in own_cohort.splits(STUDY, block)
]
FORECASTED = expand(
    "results/{table}.parquet",
    table=["forecasts", "rankings", "importance"] if COHORTS else [],
)
LEADERBOARDS = [
    f"{leaderboard}_{name}" for name in COHORTS for leaderboard in leaderboards.TABLES
] + [f"printed_numbers_{name}" for name, block in COHORTS.items() if "printed" in block]


wildcard_constraints:
    cohort="|".join(COHORTS) or "none",
    split="every_pair|random|leave_out_[^/]+",


localrules:
    assemble,
    pair,
    tabulate,
    compare,


def cohort_block(wildcards):
    """A cohort as the config describes it."""
    return STUDY["cohorts"][wildcards.cohort]


def cohort_settings(wildcards):
    """A cohort as a table."""
    return COHORTS[wildcards.cohort]


def forecast_settings(wildcards):
    """What forecasts depend on of a cohort."""
    return settings.forecasting(COHORTS[wildcards.cohort])


def cohort_table(wildcards):
    """The table of a cohort of the study's own bases."""
    block = COHORTS[wildcards.cohort]
    return block["path"] if block.get("assembled") else []


def cohort_contents(wildcards):
    """What the table of a cohort holds, where it is the user's."""
    block = COHORTS[wildcards.cohort]
    return None if block.get("assembled") else content_hashes.of_file(block["path"])


def printed_contents(wildcards):
    """What the published numbers are that a cohort is compared with."""
    return content_hashes.of_file(COHORTS[wildcards.cohort]["printed"])


def cohort_bases(wildcards):
    """The study's own bases in a cohort, with the config of each."""
    return own_cohort.bases(STUDY, cohort_block(wildcards))


def cohort_indicators(wildcards):
    """The settings of the indicators in a cohort."""
    return {
        name: STUDY["indicators"][name]
        for name in cohort_block(wildcards)["indicators"]
    }


def forecasters(*names):
    """What modules of forecasting do."""
    return content_hashes.of_code(*(f"forecasting/{name}" for name in names))


rule assemble:
    """Set the study's own bases beside each other: configs, indicators, scores after tuning."""
    input:
        scores="results/scores.parquet",
        indicators=INDICATORS,
    output:
        "results/cohorts/{cohort}.csv",
    log:
        "logs/assemble/{cohort}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        cohort=cohort_block,
        bases=cohort_bases,
        indicators=cohort_indicators,
        holes=HOLES,
        code=forecasters("own_cohort"),
    script:
        "../workflow/scripts/assemble.py"


rule pair:
    """List the pairs of bases of each target: difference, gap, what their configs share."""
    input:
        table=cohort_table,
    output:
        "results/pairs/cohort={cohort}/part.parquet",
    log:
        "logs/pair/{cohort}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        cohort=forecast_settings,
        table=cohort_contents,
        code=forecasters("cohorts", "pairs"),
    script:
        "../workflow/scripts/pair.py"


rule forecast:
    """Forecast a cohort's targets by every forecaster in one split: accuracies, rankings, importance."""
    input:
        table=cohort_table,
    output:
        forecasts="results/forecasts/cohort={cohort}/split={split}/part.parquet",
        rankings="results/rankings/cohort={cohort}/split={split}/part.parquet",
        importance="results/importance/cohort={cohort}/split={split}/part.parquet",
    log:
        "logs/forecast/{cohort}/{split}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        cohort=forecast_settings,
        statistics=STUDY["statistics"],
        table=cohort_contents,
        code=forecasters(
            "cohorts",
            "pairs",
            "splits",
            "classifiers",
            "forecasters",
            "forecast_accuracy",
            "ranking",
        ),
    script:
        "../workflow/scripts/forecast.py"


rule tabulate:
    """Make a cohort's tables of forecasters to read, as CSV in full precision and as Markdown."""
    input:
        gathered=FORECASTED,
        table=cohort_table,
    output:
        expand(
            "results/tables/{leaderboard}_{{cohort}}.{type}",
            leaderboard=leaderboards.TABLES,
            type=["csv", "md"],
        ),
    log:
        "logs/tabulate/{cohort}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        cohort=cohort_settings,
        table=cohort_contents,
        code=forecasters("leaderboards"),
    script:
        "../workflow/scripts/tabulate.py"


rule compare:
    """Set the published numbers of a cohort beside this study's own."""
    input:
        gathered=FORECASTED,
        table=cohort_table,
    output:
        csv="results/tables/printed_numbers_{cohort}.csv",
        markdown="results/tables/printed_numbers_{cohort}.md",
    log:
        "logs/compare/{cohort}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        cohort=cohort_settings,
        table=cohort_contents,
        printed=printed_contents,
        code=forecasters("published_numbers"),
    script:
        "../workflow/scripts/compare.py"
