#!/usr/bin/env bash
# scikit-learn==1.9.1: with normalize_y the noise variances of a Gaussian process are not in the units of the scores.
#
# Guess: `alpha` is the variance of the noise of each target, whether targets are normalised inside or not: normalize_y is undone in
# predictions, so it is said to change nothing but the prior.
# What happens: targets are divided by their standard deviation, alpha is not. For accuracies that differ by a few points, a standard
# error of .01 counts as one hundredth of their spread: repeated scores of one checkpoint with that error look as if they were known
# almost exactly, and the width of the posterior at a tried checkpoint is far too small.
# Why it matters: a search for the best checkpoint takes the luck of one seed for a difference between checkpoints.
# Tunecast: its posterior over scores (workflow/choosing) takes the variance of the noise in the units of the scores.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "scikit-learn==1.9.1"
cd "$folder"
export OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import sys

import numpy as np
import sklearn
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel

# Eight scores of checkpoints that share nothing (independent prior, variance that of the scores), each with a standard error of .01.
scores = np.array([0.60, 0.61, 0.62, 0.63, 0.64, 0.65, 0.66, 0.67])
places, error = np.arange(8.0)[:, None], 0.01
spread = scores.std()


class Independent(ConstantKernel):
    """Prior variance `constant_value` at each place, no correlation between places."""

    def __call__(self, X, Y=None, eval_gradient=False):
        other = X if Y is None else Y
        return self.constant_value * (X == other.T)


def deviation(normalize, variance):
    """Posterior standard deviation at the first checkpoint, with a prior of the scores' own variance."""
    process = GaussianProcessRegressor(
        Independent(variance, "fixed"), alpha=np.full(8, error**2), optimizer=None, normalize_y=normalize
    )
    return process.fit(places, scores).predict(places[:1], return_std=True)[1][0]


plain, normalised = deviation(False, spread**2), deviation(True, 1.0)
right = 1 / np.sqrt(1 / spread**2 + 1 / error**2)
wrong = spread / np.sqrt(1 + 1 / error**2)
print("scikit-learn", sklearn.__version__)
print(f"guess: the posterior deviation is {right:.5f} both ways")
print(f"seen: {plain:.5f} without normalize_y, {normalised:.5f} with it, which is the spread of the scores times the error: {wrong:.5f}")
if not (np.isclose(plain, right) and np.isclose(normalised, wrong)):
    sys.exit("the behaviour has changed")
PYTHON
