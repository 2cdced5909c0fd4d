"""Write the page that answers: results/report.html."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.planning import config_checks
from workflow.report import presenting
from workflow.report.page import rendering
from workflow.report.page.inputs import PageInputs
from workflow.storage import files

with job("page", snakemake) as log:
    asked = snakemake.params
    config_checks.read(snakemake.config)  # declares the tasks of the study, whose prompts are shown
    read = presenting.read([Path(path) for path in snakemake.input.tables])
    text = rendering.page(PageInputs(read, asked.study, parameters=asked.parameters))
    log.info("%.1f MB", len(text.encode()) / 1e6)
    files.write_text(text, Path(snakemake.output[0]))
