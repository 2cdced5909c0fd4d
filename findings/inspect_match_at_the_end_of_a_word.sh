#!/usr/bin/env bash
# inspect-ai==0.3.285: match() counts "The answer is 12" as right when the answer is "2".
#
# Guess: the scorer compares the last word or number of the output with the target.
# What happens: it asks whether the output, less its punctuation, ends in the characters of the target. 12 ends in 2, -5 in 5,
# "banana" in "a". With numeric=True the first two are wrong as they should be.
# Why it matters: accuracies of arithmetic and multiple-choice tests are too high by an amount that depends on how a model
# writes, and so differs between a base checkpoint and a tuned one.
# Tunecast: written answers are scored by exact match after SQuAD's normalisation, labels by log-probability or as whole words.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "inspect-ai==0.3.285"
cd "$folder"

venv/bin/python - <<'PYTHON'
import asyncio
import sys
from importlib.metadata import version

from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Target, match
from inspect_ai.solver import TaskState

cases = [("The answer is 12", "2"), ("It fell to -5", "5"), ("banana", "a"), ("The answer is 12", "3")]


async def score(scorer, output, target):
    answer = ModelOutput.from_content("model", output)
    state = TaskState(model="some/model", sample_id=1, epoch=1, input="question", messages=[], output=answer)
    return (await scorer(state, Target(target))).value


async def scores(scorer):
    return [await score(scorer, *case) for case in cases]


plain, numeric = asyncio.run(scores(match())), asyncio.run(scores(match(numeric=True)))
print("inspect-ai", version("inspect-ai"))
print("guess: I (incorrect) in every case")
for (output, target), first, second in zip(cases, plain, numeric, strict=True):
    print(f"seen: output {output!r}, target {target!r}: match() {first}, match(numeric=True) {second}")
if plain != ["C", "C", "C", "I"] or numeric[:2] != ["I", "I"]:
    sys.exit("the behaviour has changed")
PYTHON
