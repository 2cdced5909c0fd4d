"""Read a task's rows as prompt fields and reference answers."""

from workflow.jobs import job

from pathlib import Path

from workflow import hub, tables, task

with job("prepare", snakemake) as log:
    name, root = snakemake.wildcards.task, snakemake.params.data_root
    read = task.load(name)
    pinned = None if task.row_root(read, root) else hub.read_pin(snakemake.input.rows[0])
    source = f"hub {read.hub}" if pinned else str(task.row_root(read, root))
    rows = list(task.prepared(name, root, pinned))
    log.info("%s: %d rows from %s", name, len(rows), source)
    facts = {"task": name, "version": read.version, "source": source, "revision": pinned and pinned["commit"]}
    tables.write(rows, tables.EXAMPLES, Path(snakemake.output[0]), **facts)
