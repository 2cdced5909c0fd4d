#!/usr/bin/env bash
# statsmodels==0.15.0: two models that agree on every row differ with p = 0 by McNemar's chi-square test.
#
# Guess: without a discordant row there is no evidence of a difference: p = 1, or not a number.
# What happens: mcnemar(table, exact=False), the form recommended for large tables, subtracts its continuity correction of 1
# from a difference of 0 and divides the result by 0 discordant rows: statistic infinite, p = 0.0. Without the
# correction p is not a number; exact=True gives 1.
# Why it matters: adjacent checkpoints, or a tuning that did nothing, often answer all rows alike. A table of
# checkpoints compared pair by pair marks exactly these as significant.
# Tunecast: it resamples paired differences row by row and does not use McNemar's test.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "statsmodels==0.15.0" "numpy==2.4.6"
cd "$folder"

venv/bin/python - <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar

warnings.simplefilter("ignore")
table = np.array([[640, 0], [0, 360]])  # both right, one right, both wrong: the two never disagree
corrected, plain = mcnemar(table, exact=False), mcnemar(table, exact=False, correction=False)
exact = mcnemar(table, exact=True)

print("statsmodels", version("statsmodels"))
print("guess: p = 1 or nan in each form of the test")
print(f"seen: exact=False: statistic {corrected.statistic}, p = {corrected.pvalue}")
print(f"seen: exact=False, correction=False: statistic {plain.statistic}, p = {plain.pvalue}")
print(f"seen: exact=True: p = {exact.pvalue}")
if not (corrected.pvalue == 0 and np.isnan(plain.pvalue) and exact.pvalue == 1):
    sys.exit("the behaviour has changed")
PYTHON
