"""Draw one figure, as PDF and PNG."""

from workflow.jobs import job

from pathlib import Path

import matplotlib.style

from workflow import drawing, figures, grid, tables
from workflow.files import whole

with job("draw", snakemake) as log:
    module = grid.module(figures, snakemake.wildcards.figure)
    matplotlib.style.use(snakemake.input.style)
    analysis = drawing.overlaid(tables.read(snakemake.input.analysis), snakemake.params.overlays)
    figure = module.draw(tables.read(snakemake.input.scores), analysis)
    for kind, facts in (("pdf", {"CreationDate": None}), ("png", None)):
        with whole(Path(snakemake.output[kind])) as unfinished:
            figure.savefig(unfinished, format=kind, metadata=facts)
    log.info("drawn")
