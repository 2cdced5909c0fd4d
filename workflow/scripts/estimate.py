"""Reckon what a study costs before it runs."""

from workflow.jobs import job

from pathlib import Path

from workflow import costs, files, task

with job("estimate", snakemake) as log:
    prepared = {Path(path).stem: Path(path) for path in snakemake.input}
    sizes = {name: costs.size(*task.examples(name, path)) for name, path in prepared.items()}
    table = costs.estimate(snakemake.params.study, sizes)
    log.info("%s", table.to_string(index=False))
    files.write_text(table.to_csv(index=False), Path(snakemake.output[0]))
