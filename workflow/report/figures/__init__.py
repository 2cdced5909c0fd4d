"""One module for each figure: `draw(scores, analysis) -> Figure`. Captions use the first paragraph of its docstring.

A module also states what it NEEDS of a study (see `grid.read`), the SECTION of the report it belongs to, what its INTERVAL
covers, and the kinds of findings that are its CONCLUSIONS. A figure that READS further tables, by name, takes each as a further
argument.
"""
