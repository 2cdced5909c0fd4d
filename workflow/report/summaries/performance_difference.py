"""Fine-tuned minus base by group and step: the robust and the published estimate (arXiv 2408.06663, Table 6)."""

from __future__ import annotations

import pandas as pd

from workflow.report.summaries import StudyTables

READS = ()
NEEDS = ("groups",)
SECTION = "tuned"


def summarise(material: StudyTables) -> pd.DataFrame:
    """The rows of the analysis `performance_difference`, each with its interval and n.

    Errors: StudyError if there is none.
    """
    return material.analysed("performance_difference")
