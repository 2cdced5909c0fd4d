"""Write one table of a study, as CSV in full precision and as Markdown."""

from workflow.jobs.job import job

from pathlib import Path

from workflow import registry
from workflow.report import summaries
from workflow.storage import files, tables
from workflow.storage.markdown import markdown

with job("summarise", snakemake) as log:
    inputs = snakemake.input
    material = summaries.StudyTables(
        snakemake.params.study,
        tables.read(inputs.scores),
        tables.read(inputs.analysis),
        [Path(path) for path in inputs.bases],
        [Path(path) for path in inputs.tasks],
        Path("results/benchmarks"),
    )
    table = registry.module(summaries, snakemake.wildcards.summary).summarise(material)
    log.info("%d rows", len(table))
    files.write_text(table.to_csv(index=False), Path(snakemake.output.csv))
    files.write_text(markdown(table), Path(snakemake.output.markdown))
