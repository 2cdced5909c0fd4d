"""One module for each analysis: `analyse(items, groups, how)` -> rows in the columns of `tables.ANALYSIS`.

items: all rows of `tables.ITEMS` with the keys of their cells; groups: the study's `groups`; how: the resampling.
"""
