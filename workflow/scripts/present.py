"""Make the pages of the report and its description of the study."""

from workflow.jobs import job

from pathlib import Path

from workflow.report import description, pages, presenting

with job("present", snakemake) as log:
    found, made = snakemake.input, snakemake.output
    study = presenting.Study(
        snakemake.params.study, [Path(path) for path in found.tables], [Path(path) for path in found.figures]
    )
    shown = list(presenting.made(study))
    log.info("%d pages", len(shown))
    presenting.write(shown, Path(made.pages))
    Path(made.captions).write_text(pages.captions((page.place, page.caption) for page in shown), encoding="utf-8")
    text = description.describe(study.settings, study.tables["analysis"], study.tables["audit"])
    Path(made.description).write_text(text, encoding="utf-8")
