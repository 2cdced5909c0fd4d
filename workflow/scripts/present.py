"""Make the pages of the report and its description of the study."""

from workflow.jobs import job

from pathlib import Path

from workflow import files, grid
from workflow.report import description, pages, presenting

with job("present", snakemake) as log:
    found, made = snakemake.input, snakemake.output
    study = presenting.Study(
        snakemake.params.study, [Path(path) for path in found.tables], [Path(path) for path in found.figures]
    )
    shown = list(presenting.made(study))
    log.info("%d pages", len(shown))
    with files.whole(Path(made.pages)) as folder:
        presenting.write(shown, folder)
    files.write_text(pages.captions((page.place, page.caption) for page in shown), Path(made.captions))
    text = description.describe(grid.read(snakemake.config), study.tables["analysis"], study.tables["audit"])
    files.write_text(text, Path(made.description))
