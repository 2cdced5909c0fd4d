"""One module for each analysis: `analyse(evidence, groups, resampling)` -> rows in the columns of `tables.ANALYSIS`.

evidence: `evidence.Evidence`; groups: the study's `groups`, name -> fine-tuning task -> tests; resampling:
`statistics.Resampling`.
"""
