"""Read scores that others released into the tables of a study."""

from workflow.jobs import job

from pathlib import Path

from workflow import grid, tables

with job("adopt", snakemake) as log:
    block = snakemake.params.released
    reader = grid.reader(block)
    place = f"config.yaml: imports/{snakemake.wildcards.released}/rename"
    rows = grid.renamed(place, reader.read(Path(block["path"])), block["rename"], snakemake.params.families)
    log.info("%d scores from %s", len(rows), reader.SOURCE)
    tables.write(rows, tables.IMPORTED, Path(snakemake.output[0]), source=reader.SOURCE, files=list(reader.FILES))
