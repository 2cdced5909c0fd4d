"""Draw one figure, as PDF and PNG."""

import matplotlib.style

from workflow import drawing, figures, grid, tables
from workflow.jobs import job

with job("draw", snakemake) as log:
    module = grid.module(figures, snakemake.wildcards.figure)
    matplotlib.style.use(snakemake.input.style)
    analysis = drawing.overlaid(tables.read(snakemake.input.analysis), snakemake.params.overlays)
    figure = module.draw(tables.read(snakemake.input.scores), analysis)
    figure.savefig(snakemake.output.pdf, metadata={"CreationDate": None})
    figure.savefig(snakemake.output.png)
    log.info("drawn")
