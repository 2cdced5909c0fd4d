"""Read a task's rows as prompt fields and reference answers."""

from pathlib import Path

from workflow import tables, task
from workflow.jobs import job

with job("prepare", snakemake) as log:
    name, root = snakemake.wildcards.task, snakemake.params.data_root
    read = task.load(name)
    source = str(task.row_root(read, root) or f"hub {read.hub}")
    rows = list(task.prepared(name, root))
    log.info("%s: %d rows from %s", name, len(rows), source)
    facts = {"task": name, "version": read.version, "source": source, "revision": read.revision}
    tables.write(rows, tables.EXAMPLES, Path(snakemake.output[0]), **facts)
