"""Forecast from indicators of bases which of them will be better after fine-tuning (arXiv 2504.12491).

The modules, in the order of their dependencies: `cohorts` reads a table of bases with config fields, indicators and targets,
and `own_cohort` makes this table for a study's bases. `pairs` compares bases two at a time and scores a preference. `splits`
selects the bases to train forecasters on. `classifiers` are the learned forecasters, `forecasters` all forecasters.
`forecast_accuracy` computes how often each is right, `ranking` the quality of its order of the bases. `published_numbers`
compares with published numbers, `results` reads all results, `leaderboards` makes tables, `settings` checks the config.
"""
