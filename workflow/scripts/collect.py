"""Write a corpus of the hub as text domains: one folder per domain, with the documents of each split."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.data import corpora
from workflow.storage import files, hub

with job("collect", snakemake) as log:
    pinned, name = hub.read_pin(snakemake.input.pin), snakemake.wildcards.corpus
    with files.whole(Path(snakemake.output[0])) as folder:
        counts = corpora.collect(name, snakemake.params.corpus, lambda split: hub.rows(pinned, split), folder)
    for (domain, split), number in counts.items():
        log.info("%s, %s: %d documents", domain, split, number)
