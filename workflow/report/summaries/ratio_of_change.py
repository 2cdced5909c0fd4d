"""Change relative to the base on tasks of the other class, pooled and by step (arXiv 2408.06663, Equation 1)."""

from __future__ import annotations

import pandas as pd

from workflow.report.summaries import StudyTables

READS = ()
NEEDS = ("models",)
SECTION = "transfer"


def summarise(material: StudyTables) -> pd.DataFrame:
    """The rows of the analysis `ratio_of_change`, each with its interval and n.

    Errors: StudyError if there is none.
    """
    return material.analysed("ratio_of_change")
