#!/usr/bin/env bash
# lightgbm==4.7.0 and scikit-learn==1.9.1: NDCG of a query in which nothing is relevant is 1 in one and 0 in the other.
#
# Guess: a query without a relevant item has no ideal ranking; it is left out of the mean, by both libraries.
# What happens: LightGBM counts it as a perfect ranking (1.0), scikit-learn as the worst one (0.0), neither with a word.
# Why it matters: where checkpoints are ranked within groups (a task, a family), groups in which no checkpoint gains
# anything are common. The same ranking then has two NDCGs, and early stopping on LightGBM's is pulled towards 1.
# Tunecast: it forecasts the better of two checkpoints by a classifier and reports the share of pairs ordered right; it
# computes no NDCG.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "lightgbm==4.7.0" "scikit-learn==1.9.1" "numpy==2.4.6"
cd "$folder"

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import lightgbm
import numpy as np
from sklearn.metrics import ndcg_score

random = np.random.default_rng(0)
features = random.normal(size=(200, 3))
relevance = (features[:, 0] > 0).astype(int)
nothing = np.zeros(10, dtype=int)
record = {}
ranker = lightgbm.LGBMRanker(n_estimators=5, verbosity=-1, n_jobs=1)
ranker.fit(
    features,
    relevance,
    group=[10] * 20,
    eval_X=features[:10],
    eval_y=nothing,
    eval_at=[5],
    eval_group=[[10]],
    eval_names=["nothing_relevant"],
    callbacks=[lightgbm.record_evaluation(record)],
)
by_lightgbm = record["nothing_relevant"]["ndcg@5"][-1]
by_sklearn = ndcg_score([nothing], [ranker.predict(features[:10])], k=5)

print("lightgbm", version("lightgbm"), "scikit-learn", version("scikit-learn"))
print("guess: the query is left out, or is not a number, in both")
print(f"seen: NDCG@5 of one query of ten items, none of them relevant: LightGBM {by_lightgbm}, scikit-learn {by_sklearn}")
if (by_lightgbm, by_sklearn) != (1.0, 0.0):
    sys.exit("the behaviour has changed")
PYTHON
