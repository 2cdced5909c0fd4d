"""The report of a study: figures, tables, findings, and the pages that show them."""
