"""Readers of evaluation results that already exist: one module for each file format, and for releases known by heart.

A reader of a format has `runs(path, block)`, which yields a `runs.Run` for each model in a file, and names its PATTERNS,
the files below an import's folder that it reads, and its SOURCE, what these files are. The file says of which model a run is, and
the study's patterns say which family and step that means; `runs` does all that follows.

A reader of one release has `read(folder)`, which yields rows in the columns of `tables.IMPORTED`, and names its FILES in
that folder and its SOURCE, citation and address. Only such a reader may read keys out of the names of files, since a release may
keep them nowhere else.

LABELS of either: of its suites, as far as it is known, protocol and way of predicting labels.
"""
