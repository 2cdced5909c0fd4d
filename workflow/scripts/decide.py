"""Choose the candidates of a selection that are fine-tuned next."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.planning import config_checks, selecting
from workflow.storage import tables
from workflow.study import selection

with job("decide", snakemake) as log:
    study = config_checks.read(snakemake.config)
    names, tuned = selection.named(snakemake.params.candidates), selection.named(snakemake.params.tuned)
    played = selecting.play(study, names, tuned, [Path(part) for part in snakemake.input.parts])
    log.info("%s", played.sentence)
    facts = {
        "candidates": names,
        "batch": played.batch,
        "ended": played.ended,
        "sentence": played.sentence,
        "question": snakemake.params.question,
    }
    tables.write(played.rows, tables.SELECTION, Path(snakemake.output[0]), **facts)
