"""Draw one figure, as PDF and PNG."""

from workflow.jobs.job import job

from pathlib import Path

import matplotlib.style

from workflow import registry
from workflow.evaluation import metric_names
from workflow.report import figures, selection
from workflow.storage import tables
from workflow.storage.files import whole

with job("draw", snakemake) as log:
    module = registry.module(figures, snakemake.wildcards.figure)
    matplotlib.style.use(Path(figures.__path__[0]) / "style.mplstyle")
    scores, analysis = tables.read(snakemake.input.scores), tables.read(snakemake.input.analysis)
    # Tests that are part of a mean are drawn as the mean only, which is more precise and saves panels.
    analysis = analysis[~analysis["test"].isin(metric_names.parts(scores))]
    further = [tables.read(path) for path in snakemake.input.further]
    figure = module.draw(scores, selection.overlaid(analysis, snakemake.params.overlays), *further)
    for kind, facts in (("pdf", {"CreationDate": None}), ("png", None)):
        with whole(Path(snakemake.output[kind])) as unfinished:
            figure.savefig(unfinished, format=kind, metadata=facts)
    log.info("drawn")
