"""Read a task's rows as prompt fields and reference answers."""

from workflow.jobs.job import job

import hashlib
import sys
from pathlib import Path

from workflow import task
from workflow.data import corpora, notes
from workflow.storage import hub, tables

with job("prepare", snakemake) as log:
    name, root = snakemake.wildcards.task, snakemake.params.data_root
    read, folder = task.load(name), task.row_root(name, root)
    pinned = None if folder else hub.read_pin(snakemake.input[0])
    source = f"hub {read.hub}" if pinned else str(folder)
    passages = snakemake.params.passages.paths
    pool = [document.text for document in corpora.documents(passages)]
    rows = list(task.prepared(name, root, pinned, pool))
    log.info("%s: %d rows from %s", name, len(rows), source)
    for line in notes.of(name, rows, root, pinned):
        log.warning("%s", line)
        print(f"prepare task={name}: {line}", file=sys.stderr)
    if read.retrieved:
        log.info("contexts from %d passages of %s", len(pool), ", ".join(map(str, passages)))
    facts = {"task": name, "version": read.version, "source": source, "revision": pinned and pinned["commit"]}
    facts |= {"passages": hashlib.sha256("\n".join(pool).encode()).hexdigest()} if read.retrieved else {}
    tables.write(rows, tables.EXAMPLES, Path(snakemake.output[0]), **facts)
