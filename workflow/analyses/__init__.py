"""One module for each analysis: `analyse(evidence, groups, how)` -> rows in the columns of `tables.ANALYSIS`.

evidence: `comparison.Evidence`; groups: the study's `groups`, name -> task tuned on -> tests; how: the resampling.
"""
