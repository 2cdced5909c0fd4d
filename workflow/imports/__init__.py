"""One module for each release of scores by others: `read(folder)` -> rows in the columns of `tables.IMPORTED`.

A module also names its `FILES` in that folder, its `SOURCE`, citation and address, and `LABELS`: of its suites, as far as
it is known, protocol and way of predicting labels. Importing is the only place where
a key is read out of a name, since a release may keep it nowhere else.
"""
