"""Readers of existing evaluation results: one module for each file format, and one for each special release.

A reader of a format has `runs(path, block)`, which yields a `runs.Run` for each model in a file; PATTERNS, the files that it
reads below an import's folder; and SOURCE, a description of these files. The file names the model of a run, and the study's
patterns turn that name into family and step; the module `runs` does the rest.

A reader of one release has `read(folder)`, which yields rows in the columns of `tables.IMPORTED`; FILES in that folder; and
SOURCE, citation and address. Only such a reader may take keys from file names, since a release may have them nowhere else.

LABELS of both: protocol and prediction of labels of its suites, where known.
"""
