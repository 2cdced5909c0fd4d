"""Make the pages of the report and its description of the study."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.planning import config_checks
from workflow.report import description, pages, presenting
from workflow.storage import files

with job("present", snakemake) as log:
    inputs, outputs = snakemake.input, snakemake.output
    study = presenting.Study(
        snakemake.params.study, [Path(path) for path in inputs.tables], [Path(path) for path in inputs.figures]
    )
    shown = list(presenting.made(study))
    log.info("%d pages", len(shown))
    with files.whole(Path(outputs.pages)) as folder:
        presenting.write(shown, folder)
    files.write_text(pages.captions((page.place, page.caption) for page in shown), Path(outputs.captions))
    text = description.describe(config_checks.read(snakemake.config), study.tables["analysis"], study.tables["audit"])
    files.write_text(text, Path(outputs.description))
