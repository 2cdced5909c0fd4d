#!/usr/bin/env bash
# statsmodels==0.15.0: one missing p-value spoils the correction of all others, in a way that depends on the method.
#
# Guess: multipletests refuses a p-value that is nan, or leaves it out and corrects for the others.
# What happens: nothing is said. Holm counts the missing one as a test, so three tests are corrected for four. With fdr_bh
# all corrected p-values are nan, while the first value returned calls the same three hypotheses rejected.
# Why it matters: a test of constant scores (all right, all wrong) often ends in nan, and so does a cell that is missing
# from a grid of checkpoints. Who reads "corrected < 0.05" finds nothing significant, who reads "rejected" three results.
# Tunecast: its Holm correction is its own, and takes the rows of a table whose p-value is known.
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
from statsmodels.stats.multitest import multipletests

warnings.simplefilter("ignore")
whole, gap = [0.01, 0.02, 0.03], [0.01, np.nan, 0.02, 0.03]
seen = {}
print("statsmodels", version("statsmodels"))
print("guess: the missing test is refused or left out")
for method in ("holm", "fdr_bh"):
    for values in (whole, gap):
        rejected, corrected = multipletests(values, method=method)[:2]
        seen[method, len(values)] = rejected.tolist(), corrected
        print(f"seen: {method} of {values}: rejected {rejected.tolist()}, corrected {np.round(corrected, 3).tolist()}")
rejected, corrected = seen["fdr_bh", 4]
holm = np.isclose(seen["holm", 4][1][0], 4 * 0.01) and np.isclose(seen["holm", 3][1][0], 3 * 0.01)
if not (holm and rejected == [True, False, True, True] and np.isnan(corrected).all()):
    sys.exit("the behaviour has changed")
PYTHON
