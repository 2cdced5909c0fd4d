"""Evaluation results that already exist: one reader for each format, runs, rows of scores."""
