#!/usr/bin/env bash
# transformers==5.23.0 and 4.57.6: AutoTokenizer of 4.x cannot load a tokenizer that 5.x has saved.
#
# Guess: a tokenizer.json with its config, saved by transformers 5, loads in 4.57, since the format of the file is the same.
# What happens: the config names the class TokenizersBackend, which only 5.x has; AutoTokenizer of 4.57 raises a ValueError. The
# same folder loads with PreTrainedTokenizerFast of 4.57, with the same ids and, from chat_template.jinja, the same chat template.
# Why it matters: a model that was fine-tuned under 5.x does not load in an evaluation or serving environment that pins 4.x.
# Tunecast: docs/results.md says how to load fine-tuned models there.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 5.23.0 4.57.6; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --no-compile --disable-pip-version-check "transformers==$version" jinja2
done
cd "$folder"

5.23.0/bin/python - <<'PYTHON'
import json

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bpe.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
bpe.train_from_iterator(["a small text"], trainers.BpeTrainer(vocab_size=300, special_tokens=["<eos>"], initial_alphabet=alphabet))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>")
tokenizer.chat_template = "{% for turn in messages %}[{{ turn['role'] }}] {{ turn['content'] }}{% endfor %}"
tokenizer.save_pretrained("saved")
named = json.load(open("saved/tokenizer_config.json"))["tokenizer_class"]
print(f"{transformers.__version__} saves the class {named}")
assert named == "TokenizersBackend"
json.dump(tokenizer("a small text")["input_ids"], open("ids.json", "w"))
PYTHON

4.57.6/bin/python - <<'PYTHON'
import json

import transformers

try:
    transformers.AutoTokenizer.from_pretrained("saved")
    said = None
except ValueError as error:
    said = str(error)
print(f"{transformers.__version__}, AutoTokenizer: {said}")
assert said and "TokenizersBackend does not exist" in said
tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained("saved")
assert tokenizer("a small text")["input_ids"] == json.load(open("ids.json"))
assert tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False) == "[user] hello"
print("PreTrainedTokenizerFast: the same ids and chat template")
PYTHON
