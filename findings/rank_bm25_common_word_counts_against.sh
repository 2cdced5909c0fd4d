#!/usr/bin/env bash
# rank-bm25==0.2.2: a passage that holds the word of the query can rank below one that does not.
#
# Guess: BM25 never takes points away; a passage with the word scores at least as much as one without it.
# What happens: the IDF of a word in more than half of the passages is negative. BM25Okapi replaces it by a quarter of the
# mean IDF, and in a small collection of similar passages that mean is negative as well: the word then counts against
# every passage that holds it. In a collection of two passages every score is exactly 0.
# Why it matters: demonstrations and passages retrieved for a prompt are often picked from such small pools; the pick is
# then the passage that has least to do with the question, without an error.
# Tunecast: its own retriever takes the IDF log(1 + (N - n + 0.5) / (n + 0.5)), which is positive for every word.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "rank-bm25==0.2.2" "numpy==2.4.6"
cd "$folder"

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

from rank_bm25 import BM25Okapi

passages = ["alpha beta", "alpha beta", "beta alpha", "zeta"]
scores = BM25Okapi([text.split() for text in passages]).get_scores(["alpha"])
two = BM25Okapi([["cat", "sat"], ["dog", "ran"]]).get_scores(["cat"])

print("rank-bm25", version("rank-bm25"))
print("guess: passages with 'alpha' score more than the one without; 'cat' scores more than 0 for one of two passages")
for text, score in zip(passages, scores):
    print(f"seen: query 'alpha', passage {text!r}: {score:+.4f}")
print(f"seen: query 'cat', two passages: {two.tolist()}")
if not (max(scores[:3]) < 0 == scores[3] and not two.any()):
    sys.exit("the behaviour has changed")
PYTHON
