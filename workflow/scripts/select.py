"""Say what a selection came to."""

from workflow.jobs.job import job

import sys
from pathlib import Path

from workflow.planning import selecting
from workflow.storage import files, tables

with job("select", snakemake) as log:
    path = Path(snakemake.input[0])
    sentence = tables.recorded(path)["sentence"]
    tables.write(tables.rows(path), tables.SELECTION, Path(snakemake.output.table), sentence=sentence)
    files.write_text(selecting.page(tables.read(path), sentence), Path(snakemake.output.markdown))
    log.info("%s", sentence)
    sys.stderr.write(f"{sentence}\n")
