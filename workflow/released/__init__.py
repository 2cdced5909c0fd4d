"""Import existing evaluation results: one reader for each file format, runs, rows of scores."""
