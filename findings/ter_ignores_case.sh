#!/usr/bin/env bash
# sacrebleu==2.6.0: TER does not see upper and lower case, while BLEU and chrF of the same package do.
#
# Guess: three metrics of one package, called in one way, treat case alike.
# What happens: corpus_ter lower-cases hypothesis and reference by default, so an output that is wrong in the case of every
# word has an error rate of 0; corpus_bleu gives it 0 as well, which there is the worst score, and corpus_chrf next to nothing.
# Why it matters: a checkpoint that loses case in tuning (or shouts) is perfect by one column of a table and useless by the
# next; lm_eval passes these defaults on.
# Tunecast: its metrics for written answers are ROUGE, exact match and F1 of words; it does not use sacrebleu.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "sacrebleu==2.6.0"
cd "$folder"

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import sacrebleu

reference, output = "Paris is the capital of France", "PARIS IS THE CAPITAL OF FRANCE"
ter = sacrebleu.corpus_ter([output], [[reference]]).score
bleu = sacrebleu.corpus_bleu([output], [[reference]]).score
chrf = sacrebleu.corpus_chrf([output], [[reference]]).score

print("sacrebleu", version("sacrebleu"))
print("guess: all three see that no word is written as in the reference")
print(f"seen: TER {ter} (0 is best), BLEU {bleu:.1f}, chrF {chrf:.1f} (100 is best)")
if not (ter == 0 and bleu < 1 and chrf < 20):
    sys.exit("the behaviour has changed")
PYTHON
