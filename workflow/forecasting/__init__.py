"""From indicators of untouched bases to which of them will be better after tuning (arXiv 2504.12491).

The modules in the order in which they build on each other: `cohorts` reads a table of bases with their config fields,
indicators and targets, and `own_cohort` makes that of a study's own bases; `pairs` sets bases against each other, two at a time,
and credits a preference; `splits` says which bases a forecaster may learn from; `classifiers` are the classifiers that learn,
`forecasters` all that has a preference; `forecast_accuracy` how often each is right, and `ranking` what its order of the bases
is worth. `published_numbers` sets published numbers beside them, `results` reads it all back, `leaderboards` are the
tables to read; `settings` checks the config.
"""
