"""How well indicators predict scores after fine-tuning."""


include: "functions/forecasting.smk"


wildcard_constraints:
    cohort="|".join(COHORTS) or "none",
    split="every_pair|random|leave_out_[^/]+",


localrules:
    assemble,
    pair,
    tabulate,
    compare,


rule assemble:
    """Make a cohort of the study's own bases: config fields, indicators, scores after fine-tuning."""
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
    """List all pairs of bases for each target: their difference, and the config fields that they share."""
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
    """Run every forecaster on one split of a cohort: accuracy, rankings, feature importance."""
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
    """Write the tables of a cohort's forecasters, as CSV in full precision and as Markdown."""
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
        code=content_hashes.of_code("forecasting/leaderboards", "storage/markdown"),
    script:
        "../workflow/scripts/tabulate.py"


rule compare:
    """Compare published numbers of a cohort with those of this study."""
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
