"""Write the scores of a study in the formats of others."""

from workflow.jobs.job import job

from datetime import UTC, datetime
from pathlib import Path

from workflow.analysis import scored_rows
from workflow.released import exporting
from workflow.storage import files, tables

with job("export", snakemake) as log:
    scores = tables.read(Path(snakemake.input.scores))
    time = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    log.info("%d scores without a value are left out", int(scores["value"].isna().sum()))
    with files.whole(Path(snakemake.output[0])) as unfinished:
        log.info("%d files", exporting.write(scores, unfinished, time))
        rows = scored_rows.runs(Path(snakemake.input.rows), lambda keys: True)
        log.info("%d files of samples", exporting.write_samples(rows, unfinished, time))
