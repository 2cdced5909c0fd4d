"""Published numbers that do not follow from the published table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.audit.inputs import finding, listed
from workflow.forecasting.results import Forecasting


def check_cohort(forecasting: Forecasting) -> Iterator[dict[str, Any]]:
    """A finding for each table or figure of a publication with numbers that differ from this study's by more than allowed.

    A warning; a note where all of them are from random splits, since the splits of the publication are not known.
    """
    for printed_in, rows in forecasting.comparison.groupby("place", sort=False):
        other = rows[~rows["follows"].astype(bool)]
        if len(other):
            parts = [_described(row) for row in other.to_dict("records")]
            drawn = (other["split"] == "random").all()
            evidence = (
                f"{printed_in}: {len(rows) - len(other)} of {len(rows)} numbers follow from the table, "
                f"these do not: {listed(parts, 30)}"
                f"{'; all of these are from random splits, which differ from the published ones' if drawn else ''}"
            )
            most = float(other["difference"].abs().max())
            yield finding(
                "note" if drawn else "warning",
                rows,
                evidence,
                value=most,
                limit=float(other["within"].max()),
                n=len(rows),
            )


def _described(row: dict[str, Any]) -> str:
    """A published number and the number of this study."""
    about = f" of {row['column']}" if row["column"] else ""
    trained = f" trained on {row['source']}" if row["source"] and row["source"] != row["target"] else ""
    on = f" on {row['target']}" if row["target"] else ""
    relation = "" if row["relation"] == "=" else f"{row['relation']} "
    number = f"{row['statistic']}{about} by {row['forecaster']}{trained}{on}"
    return f"{number}: printed {relation}{row['printed']:g}, here {row['own']:.3g}"
