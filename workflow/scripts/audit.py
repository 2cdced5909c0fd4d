"""Check a study's results for known flaws."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.audit import inputs
from workflow.forecasting import results
from workflow.storage import tables

with job("audit", snakemake) as log:
    files = snakemake.input
    paths = {name: [Path(path) for path in files[name]] for name in ("predictions", "bases", "tasks")}
    material = inputs.AuditInputs(
        tables.read(files.scores),
        tables.read(files.analysis),
        paths["predictions"],
        paths["bases"],
        paths["tasks"],
        snakemake.params.groups,
        results.load(snakemake.params.cohorts, *map(Path, files.forecasting)) if files.forecasting else (),
        tables.read(Path(files.indicators[0])) if files.indicators else None,
        snakemake.params.indicators,
        snakemake.params.holes,
        tables.frame(tables.gather([Path(path) for path in files.released], [], tables.RELEASED)),
        [Path(path) for path in files.adopted],
    )
    rows = inputs.findings(material)
    for row in rows:
        row_name = " ".join(f"{key}={row[key]}" for key in ("cohort", *inputs.KEYS) if key in row)
        log.info("%s %s %s: %s", row["severity"], row["check"], row_name, row["evidence"])
    tables.write(rows, tables.AUDIT, Path(snakemake.output[0]))
