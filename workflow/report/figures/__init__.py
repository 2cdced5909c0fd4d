"""One module for each figure: `draw(scores, analysis) -> Figure`; the first paragraph of its docstring is read in captions.

A module also says what it NEEDS of a study (see `grid.read`), the SECTION of the report that it is in, what its INTERVAL
is over, and which kinds of findings are its CONCLUSIONS.
"""
