import gc
import os
import pathlib
import sys

from snakemake.utils import min_version

from workflow import registry, upgrading
from workflow.errors import StudyError, told
from workflow.jobs import devices, locks
from workflow.planning import config_checks, messages, snakemake_patches
from workflow.storage import checksums
from workflow.study import config as configs
from workflow.study import grid, selection
from workflow.training import missing_models

min_version("9.14")
# Jobs by the ten thousand are many objects, none of them garbage: looking for it so often takes an eighth of a dry run.
gc.set_threshold(200_000, 50, 50)

locks.begin()
snakemake_patches.limit_reevaluations()
snakemake_patches.remember()
snakemake_patches.list_first(
    ["all", "report", "estimate", "prefetch", "next", "select", "export"]
)
if workflow.is_main_process:
    snakemake_patches.warm_start(
        lambda rule: pathlib.Path(workflow.get_rule(rule).conda_env or "").stem
    )
if upgrading.UNDER_WAY in os.environ:
    upgrading.begin()
elif workflow.is_main_process and (earlier := upgrading.pending()):
    sys.exit(earlier)

if not (pathlib.Path("config.yaml").is_file() or workflow.overwrite_configfiles):
    sys.exit(messages.no_config(workflow.basedir))


configfile: "config.yaml"


# Made by `present` from the tables, so that the report says what the study is.
report: os.path.abspath("results/description.rst")


if set("{}") & set(workflow.basedir):
    sys.exit(
        f"{workflow.basedir}: has braces in its name, which Snakemake takes for wildcards; move Tunecast to another folder"
    )
if workflow.is_main_process and (damaged := checksums.sweep()):
    sys.exit("\n".join(damaged))

try:
    for path in workflow.configfiles:
        configs.check_keys(pathlib.Path(path))
    STUDY = config_checks.read(config)
    registry.hand_over(config)  # jobs get the tasks and mixes that were checked
    LEFT = selection.not_chosen(STUDY)
    HOLES = missing_models.found(
        STUDY, missing_models.without(grid.models(STUDY), LEFT)
    )
    CANDIDATES = missing_models.without(
        selection.candidates(STUDY), HOLES, selection.CANDIDATE_KEYS
    )
    MODELS = missing_models.without(grid.models(STUDY), [*HOLES, *LEFT])
    PARTS = missing_models.without(grid.parts(STUDY), [*HOLES, *LEFT])
    TRIALS = missing_models.without_searches(
        grid.trials(STUDY), missing_models.unchosen(STUDY)
    )
except (StudyError, OSError) as error:
    sys.exit(told(error) or str(error))


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/tuning.smk"
include: "rules/checkpoints.smk"
include: "rules/evaluation.smk"
include: "rules/released.smk"
include: "rules/indicators.smk"
include: "rules/forecasting.smk"
include: "rules/analysis.smk"
include: "rules/reporting.smk"
include: "rules/planning.smk"
include: "rules/selection.smk"


rule all:
    """Everything a study asks for: its scores, analyses, figures and tables."""
    default_target: True
    input:
        "results/scores.parquet",
        "results/histories.parquet",
        CHOSEN,
        CHOSEN_OWN,
        "results/analysis.parquet",
        "results/audit.parquet",
        expand(
            "results/figures/{figure}.{type}",
            figure=STUDY["figures"],
            type=["pdf", "png"],
        ),
        expand(
            "results/tables/{summary}.{type}",
            summary=STUDY["summaries"],
            type=["csv", "md"],
        ),
        INDICATORS,
        FORGOTTEN,
        FORECASTED,
        RECOMMENDED,
        expand(
            "results/tables/{leaderboard}.{type}",
            leaderboard=LEADERBOARDS,
            type=["csv", "md"],
        ),
        ["results/pairs.parquet"] if COHORTS else [],
        "results/pages",


snakemake_patches.before_dry_run(
    lambda: messages.begin(STUDY, to_do(), cores_without_gpu())
)


onstart:
    locks.note()
    messages.begin(STUDY, to_do(), cores_without_gpu())


onerror:
    messages.end(
        failed(),
        "".join(pathlib.Path(path).read_text("utf-8", "replace") for path in log),
    )
