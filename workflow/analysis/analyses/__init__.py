"""One module for each analysis: `analyse(evidence, groups, how)` -> rows in the columns of `tables.ANALYSIS`.

evidence: `evidence.Evidence`; groups: the study's `groups`, name -> task tuned on -> tests; how: the resampling.
"""
