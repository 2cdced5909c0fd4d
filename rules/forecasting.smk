"""From a table of bases with indicators and tuned scores to what the indicators forecast."""

MEASURED = VARIANTS["path"] if VARIANTS else []
FORECASTERS = expand(
    f"{PACKAGE}/forecasting/{{name}}.py",
    name=[
        "variants",
        "pairs",
        "splits",
        "comparers",
        "forecasters",
        "forecasts",
        "ranking",
    ],
)
# What forecasts depend on of the variants' block.
FORECAST_SETTINGS = {
    key: block
    for key, block in (VARIANTS or {}).items()
    if key not in ("test_rows", "full_score", "printed")
}
LEADERBOARDS = (
    list(leaderboards.tables("printed" in VARIANTS)) if VARIANTS else ["none"]
)


wildcard_constraints:
    split="every_pair|random|leave_out_[^/]+",
    leaderboard="|".join(LEADERBOARDS),


ruleorder: tabulate > summarise


rule pair:
    """List the pairs of bases of each target: difference, gap, what their configs share."""
    input:
        table=MEASURED,
        modules=FORECASTERS[:2],
    output:
        "results/pairs.parquet",
    log:
        "logs/pair.log",
    conda:
        "../envs/analysis.yaml"
    params:
        variants=FORECAST_SETTINGS,
    script:
        "../workflow/scripts/pair.py"


rule forecast:
    """Forecast the targets by every forecaster in one split: accuracies, rankings, importance."""
    input:
        table=MEASURED,
        modules=FORECASTERS,
    output:
        forecasts="results/forecasts/split={split}/part.parquet",
        rankings="results/rankings/split={split}/part.parquet",
        importance="results/importance/split={split}/part.parquet",
    log:
        "logs/forecast/{split}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        variants=FORECAST_SETTINGS,
        statistics=STUDY["statistics"],
    script:
        "../workflow/scripts/forecast.py"


rule tabulate:
    """Make one table of forecasters to read, as CSV in full precision and as Markdown."""
    input:
        gathered=FORECASTED,
        table=MEASURED,
        printed=VARIANTS.get("printed", []) if VARIANTS else [],
        modules=[
            f"{PACKAGE}/forecasting/leaderboards.py",
            f"{PACKAGE}/forecasting/printed.py",
        ],
    output:
        csv="results/tables/{leaderboard}.csv",
        markdown="results/tables/{leaderboard}.md",
    log:
        "logs/tabulate/{leaderboard}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        variants=VARIANTS,
    script:
        "../workflow/scripts/tabulate.py"
