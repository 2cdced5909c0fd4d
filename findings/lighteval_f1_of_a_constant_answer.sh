#!/usr/bin/env bash
# lighteval==0.13.0: on three balanced classes, a model that always gives the same answer has an F1 of 0.56.
#
# Guess: multi_f1_numeric, the metric of CommitmentBank, is micro or macro F1 over the three classes: 0.33 or 0.17 here.
# What happens: each class is set against the rest, micro F1 is taken of each of the three two-class problems, right
# rejections included, and averaged. That is a mean accuracy of "is it class i or not", and 0.56 for a constant answer.
# With average="macro" the same class gives 0.35 where scikit-learn gives 0.17.
# Why it matters: a checkpoint that has collapsed to one label looks better than chance, and better than its own accuracy (0.33).
# Tunecast: its macro F1 is the mean of the classes' own F1; constant predictions are a finding of the audit.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "lighteval==0.13.0" "torch==2.13.0" "scikit-learn==1.9.1"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

from lighteval.metrics.metrics import Metrics
from lighteval.metrics.sample_preparator import LogprobCorpusMetricInput
from sklearn.metrics import f1_score

gold, answers = [0, 1, 2] * 10, [0] * 30
metric = Metrics.multi_f1_numeric.value.corpus_level_fn
seen = metric.compute_corpus([LogprobCorpusMetricInput(golds=g, preds=p) for g, p in zip(gold, answers, strict=True)])
micro, macro = (f1_score(gold, answers, average=average) for average in ("micro", "macro"))

print("lighteval", version("lighteval"), "scikit-learn", version("scikit-learn"))
print(f"guess: {micro:.3f} (micro F1, here the accuracy) or {macro:.3f} (macro F1)")
print(f"seen: {seen:.3f}")
if abs(seen - 5 / 9) > 1e-9:
    sys.exit("the behaviour has changed")
PYTHON
