"""Read evaluation results that already exist into the tables of a study."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.released import renaming, runs, score_rows
from workflow.storage import tables

with job("adopt", snakemake) as log:
    asked, name = snakemake.params, snakemake.wildcards.released
    block, key_path = asked.released | {"path": str(asked.folder)}, f"config.yaml: imports/{name}/rename"
    reader, root = runs.reader(block), asked.root and str(asked.root)
    if hasattr(reader, "FILES"):
        folder = runs.folder_of(block, root)
        results = score_rows.ImportedResults(list(score_rows.described(reader.read(folder))), [], [], {})
    else:
        results = score_rows.import_results(block, reader, block.get("suite", block["reader"]), root)
    scores = renaming.renamed(key_path, results.scores, block["rename"], asked.families)
    scores = score_rows.with_tokens(scores, block.get("tokens_per_step"))
    items, listed = (renaming.with_names(rows, block["rename"]) for rows in (results.items, results.files))
    log.info("%d scores and %d rows of %d files from %s", len(scores), len(items), len(listed), runs.cited(block))
    schema = tables.pa.schema([*tables.KEYS, *tables.SCORES])
    tables.write(scores, schema, Path(snakemake.output.scores), source=runs.cited(block), fields=results.fields)
    tables.write(items, tables.pa.schema([*tables.KEYS, *tables.ITEMS]), Path(snakemake.output.rows))
    tables.write(listed, tables.RELEASED, Path(snakemake.output.files))
