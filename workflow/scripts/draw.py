"""Draw one figure, as PDF and PNG."""

import importlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from workflow import tables
from workflow.jobs import job

with job("draw", snakemake) as log:
    module = importlib.import_module(f"workflow.figures.{snakemake.wildcards.figure}")
    plt.style.use(snakemake.input.style)
    figure = module.draw(tables.read(snakemake.input.scores), tables.read(snakemake.input.analysis))
    figure.savefig(snakemake.output.pdf, metadata={"CreationDate": None})
    figure.savefig(snakemake.output.png)
    log.info("drawn")
