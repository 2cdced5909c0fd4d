"""Compare the losses of fine-tuned models with those of their bases."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.indicators import forgetting
from workflow.storage import tables
from workflow.study import grid

with job("forgetting", snakemake) as log:
    before, after = (
        tables.frame(tables.gather([Path(part) for part in parts], keys, tables.MEASURED))
        for parts, keys in ((snakemake.input.bases, grid.BASE_KEYS), (snakemake.input.tuned, grid.MODEL_KEYS))
    )
    before = before[before["indicator"].isin(snakemake.params.indicators)]
    rows = forgetting.changes(before, after, snakemake.params.level)
    log.info("%d changes", len(rows))
    schema = tables.keyed(forgetting.MODEL, tables.FORGETTING)
    tables.write(rows, schema, Path(snakemake.output[0]))
