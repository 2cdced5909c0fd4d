"""Record the commit of a corpus on the hub, with the files of its subset and how to read them."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.data import corpora
from workflow.storage import files

with job("pin_corpus", snakemake) as log:
    pinned = corpora.pin(snakemake.wildcards.corpus, snakemake.params.corpus)
    log.info("%s at %s is %s", pinned["repo"], pinned["revision"], pinned["commit"])
    files.write_json(pinned, Path(snakemake.output[0]))
