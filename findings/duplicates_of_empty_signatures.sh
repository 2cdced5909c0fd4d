#!/usr/bin/env bash
# datasketch==2.0.0: every document too short for a shingle is a duplicate of every other one.
#
# Guess: the Jaccard similarity of two empty sets is 0 or undefined, and a search finds no duplicates for them.
# What happens: signatures that nothing was added to are equal, so their estimated similarity is 1.0, and an LSH index
# returns all of them for each. A document of fewer words than a shingle holds adds nothing.
# Why it matters: deduplication of a corpus by 5-word shingles keeps one of all the short documents (titles, answers,
# dialogue turns) and drops the rest; an overlap check between test and training rows finds every short row contaminated.
# Tunecast: its overlap audit compares whole texts after normalising them and does not use MinHash.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "datasketch==2.0.0"
cd "$folder"

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

from datasketch import MinHash, MinHashLSH

documents = {"a": "Paris", "b": "forty two", "c": "no", "d": "one two three four five six seven"}
index, signatures = MinHashLSH(threshold=0.9, num_perm=64), {}
for name, text in documents.items():
    words, signature = text.split(), MinHash(num_perm=64)
    for start in range(len(words) - 4):
        signature.update(" ".join(words[start : start + 5]).encode())
    signatures[name] = signature
    index.insert(name, signature)
similarity = signatures["a"].jaccard(signatures["b"])
found = sorted(index.query(signatures["a"]))

print("datasketch", version("datasketch"))
print("guess: 'Paris' and 'forty two' are no duplicates")
print(f"seen: similarity of {documents['a']!r} and {documents['b']!r}: {similarity}; near duplicates of 'Paris': {found}")
if similarity != 1 or found != ["a", "b", "c"]:
    sys.exit("the behaviour has changed")
PYTHON
