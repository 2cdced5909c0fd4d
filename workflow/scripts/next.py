"""Show which candidates of a selection would be fine-tuned next."""

from workflow.jobs.job import job

import sys
from pathlib import Path

from workflow.planning import config_checks, selecting
from workflow.storage import files, tables
from workflow.study import selection

with job("next", snakemake) as log:
    names, tuned = selection.named(snakemake.params.candidates), selection.named(snakemake.params.tuned)
    played = selecting.play(
        config_checks.read(snakemake.config), names, tuned, [Path(part) for part in snakemake.input.parts]
    )
    tables.write(played.rows, tables.SELECTION, Path(snakemake.output.table))
    text = selecting.page(tables.read(Path(snakemake.output.table)), played.sentence)
    files.write_text(text, Path(snakemake.output.markdown))
    sys.stderr.write(text)
