"""Inputs and parameters of the rules in forecasting.smk."""

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
