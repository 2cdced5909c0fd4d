"""Predictions against plain loops over single rows with transformers, and against lm-evaluation-harness."""

import json
import math
import os
import random
from pathlib import Path

import datasets
import lm_eval
import pandas as pd
import pytest
import torch
import yaml
from conftest import ARCHITECTURES, CONTEXT
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import GenerationConfig, PhiConfig, PhiForCausalLM, PreTrainedTokenizerFast

from workflow import task
from workflow.errors import StudyError
from workflow.evaluation import metrics, prediction
from workflow.evaluation.prediction import Evaluation
from workflow.models import loading
from workflow.models.engine import generation, reading, scoring
from workflow.statistics import Resampling
from workflow.storage import tables
from workflow.task import Example

DATA = Path(os.environ.get("TUNECAST_DATA", Path(__file__).parents[3] / "shared" / "data"))
HARNESS = Path(lm_eval.__file__).parent / "tasks"

LABELS = ("entailment", "neutral", "contradiction")
PAIRS = [
    ("Ann has a cat.", "It can fly."),
    ("Bo saw an owl.", "The owl eats fish."),
    ("A man sleeps in the barn while a dog sings a song and a trout swims in the river.", "A man runs."),
    ("😀", "Ça va, Dora?"),
    ("Ann has a cat.", "It can fly."),
    ("Cy has a hen.", "Cy has no hen at all, but Dora has one."),
    ("A trout swims.", "It swims."),
]
QUESTIONS = [
    ("What can fly?", ("the owl", "the trout", "the fox in the barn"), 0),
    ("Who has a cat?", ("Ann", "Bo and Dora", "nobody", "Cy"), 3),
    ("What do hens say?", ("Ça va?", "日本語", "yes"), 1),
    ("A trout", ("swims in the river", "sleeps in the river", "swims"), 0),
]
SENTENCES = [
    ("Ann thanked Bo because _ had sung a song.", "Ann", "Bo", "2"),
    ("The owl flew past the hen, so _ was faster.", "the owl", "the hen", "1"),
    ('Cy said "_\'s asleep in the barn."', "Dora the dog", "the fox", "1"),
    ("_ sleeps.", "A man", "A cat in the river", "2"),
]


@pytest.fixture(autouse=True)
def shares_whatever_it_can(monkeypatch):
    """What rows begin with in common is read once, however little that saves."""
    monkeypatch.setattr(reading, "LEAST", 0)


def suite(**changes):
    """A suite's block as a validated config holds it."""
    plain = {"protocol": "sound", "labels": "score", "seed": 3, "new_tokens": 12, "batch_tokens": 8192}
    return {**plain, **changes}


def inference_rows(split, pairs=PAIRS):
    return [
        (f"{split}/{number}", Example({"premise": a, "hypothesis": b}, LABELS[number % 3], LABELS, number % 3))
        for number, (a, b) in enumerate(pairs)
    ]


def question_rows(split):
    return [
        (f"{split}/{number}", Example({"question": question}, choices[gold], choices, gold))
        for number, (question, choices, gold) in enumerate(QUESTIONS)
    ]


def winogrande_rows(split):
    names = ("sentence", "option1", "option2", "answer")
    read = task.load("winogrande").read
    return [(f"{split}/{number}", read(dict(zip(names, row, strict=True)))) for number, row in enumerate(SENTENCES)]


@torch.no_grad()
def loop_logprob(checkpoint, prompt, continuation):
    """log p(continuation | prompt), tokens of the text as a whole, one row, no padding, every position's logits."""
    ids = checkpoint.tokenizer(prompt + continuation)["input_ids"]
    first = len(checkpoint.tokenizer(prompt)["input_ids"])
    logits = checkpoint.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
    return sum(float(logits[place - 1, ids[place]]) for place in range(first, len(ids)))


@torch.no_grad()
def last_logprobs(checkpoint, prompt):
    """Log-probabilities of every next token after a prompt."""
    ids = checkpoint.tokenizer(prompt, return_tensors="pt")["input_ids"]
    return checkpoint.model(input_ids=ids).logits[0, -1].double().log_softmax(dim=-1)


@torch.no_grad()
def loop_greedy(checkpoint, prompt, new_tokens):
    """What `model.generate` writes after one prompt, without a batch, and without the EOS that may end it."""
    fed = checkpoint.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    end = checkpoint.tokenizer.eos_token_id
    ids = checkpoint.model.generate(**fed, do_sample=False, max_new_tokens=new_tokens, pad_token_id=end)
    written = ids[0, fed["input_ids"].shape[1] :].tolist()
    return written[:-1] if written[-1] == end else written


def agree(found, expected):
    """Log-probabilities agree within 1e-4, and the best is the same."""
    for row, values in zip(found, expected, strict=True):
        assert row["logprobs"] == pytest.approx(values, abs=1e-5, rel=0)
        assert row["output"] == row["choices"][values.index(max(values))]


def shown_sound(solve, train, shots, seed=3):
    return "".join(solve(example) + "\n\n" for _, example in random.Random(seed).sample(train, shots))


def asked(example):
    return "### Input_1: {premise}\n ### Input_2: {hypothesis}\n ### Inference:".format_map(example.fields)


# Comparing labels and choices


@pytest.mark.parametrize("batch_tokens", [64, 8192])
@pytest.mark.parametrize("shots", [0, 2])
def test_labels_equal_a_plain_loop(checkpoint, shots, batch_tokens):
    train, test = inference_rows("train", PAIRS[::-1][:4]), inference_rows("test")
    settings = suite(batch_tokens=batch_tokens)
    found = prediction.predict_test(
        Evaluation(*checkpoint[:2], settings), task.load("rte"), train, test, "default", shots
    )
    shown = shown_sound(lambda example: f"{asked(example)} {example.answer}", train, shots)
    expected = [
        [loop_logprob(checkpoint, shown + asked(example), f" {label}") for label in LABELS] for _, example in test
    ]
    agree(found, expected)
    assert [row["shots_used"] for row in found] == [shots] * len(test)
    assert len({round(row["logprobs"][0], 3) for row in found}) == len(set(PAIRS)), "prompts differ, and so do numbers"
    counts = [len(checkpoint.tokenizer(f" {label}", add_special_tokens=False)["input_ids"]) for label in LABELS]
    assert all(row["candidate_tokens"] == counts for row in found)


@pytest.mark.parametrize("batch_tokens", [64, 8192])
@pytest.mark.parametrize(("protocol", "shots", "gap"), [("sound", 0, ""), ("sound", 2, "\n\n"), ("published", 2, "\n")])
def test_choices_equal_a_plain_loop(checkpoint, protocol, shots, gap, batch_tokens):
    rows = question_rows("train"), question_rows("test")
    settings = suite(protocol=protocol, batch_tokens=batch_tokens)
    found = prediction.predict_test(
        Evaluation(*checkpoint[:2], settings), task.load("arc_easy"), *rows, "default", shots
    )
    drawn = random.Random(3).sample(rows[0], shots) if protocol == "sound" else rows[1][:shots]
    shown = "".join(f"Question: {row.fields['question']}\nAnswer: {row.answer}{gap}" for _, row in drawn)
    expected = []
    for _, row in rows[1]:
        prompt = f"{shown}Question: {row.fields['question']}\nAnswer:"
        expected.append([loop_logprob(checkpoint, prompt, f" {choice}") for choice in row.choices])
    agree(found, expected)


@pytest.mark.parametrize("batch_tokens", [64, 8192])
@pytest.mark.parametrize("shots", [0, 1])
def test_choices_with_leads_equal_a_plain_loop(checkpoint, shots, batch_tokens):
    train, test = winogrande_rows("train"), winogrande_rows("test")
    settings = suite(batch_tokens=batch_tokens)
    found = prediction.predict_test(
        Evaluation(*checkpoint[:2], settings), task.load("winogrande"), train, test, "default", shots
    )

    def solved(example):
        return f"{example.fields['beginning']} {example.leads[example.gold]}{example.answer}"

    shown, expected = shown_sound(solved, train, shots), []
    for sentence, *options, _ in SENTENCES:
        before, after = sentence.split("_")
        expected.append([loop_logprob(checkpoint, shown + (before or " ") + option, after) for option in options])
    agree(found, expected)


@pytest.mark.parametrize("batch_tokens", [64, 8192])
@pytest.mark.parametrize(("format", "shots"), [("default", 0), ("default", 2), ("io", 2), ("instruct", 0)])
def test_published_labels_equal_a_loop_over_the_last_logits(checkpoint, format, shots, batch_tokens):
    template = {
        "default": "### Input_1: {premise}\n ### Input_2: {hypothesis}\n ### Inference: ",
        "io": "{premise} {hypothesis}",
        "instruct": "Consider the following texts: Text 1: {premise} Text 2: {hypothesis} The relation is ",
    }[format]
    test = inference_rows("test")
    settings = suite(protocol="published", batch_tokens=batch_tokens)
    found = prediction.predict_test(Evaluation(*checkpoint[:2], settings), task.load("rte"), [], test, format, shots)
    assert len(found) == len(test)
    shown = "".join(template.format_map(row.fields) + row.answer + "\n" for _, row in test[:shots])
    pools = [
        {token for text in (label, f" {label}") for token in checkpoint.tokenizer(text, add_special_tokens=False)["input_ids"]}
        for label in LABELS
    ]  # fmt: skip
    expected = []
    for _, row in test:
        after = last_logprobs(checkpoint, shown + template.format_map(row.fields))
        expected.append([max(float(after[token]) for token in pool) for pool in pools])
    agree(found, expected)


def test_requests_share_inputs_and_keep_their_own_sums(checkpoint):
    """Continuations of one context where some begin others, repeat, or differ at the first token; two contexts."""
    requests = [([5, 6, 7], [8]), ([5, 6, 7], [8, 9, 10]), ([5, 6, 7], [8, 9]), ([5, 6, 7], [11]), ([5, 6, 7], [8])]
    requests += [([5], [6, 7, 8, 9]), ([5, 6, 7], [8, 11, 12])]
    found = scoring.log_probabilities(checkpoint.model, requests, 20)
    for (context, ids), value in zip(requests, found, strict=True):
        with torch.no_grad():
            logits = checkpoint.model(input_ids=torch.tensor([[*context, *ids]])).logits[0].log_softmax(dim=-1)
        expected = sum(float(logits[len(context) - 1 + place, token]) for place, token in enumerate(ids))
        assert value == pytest.approx(expected, abs=1e-5, rel=0)


def test_equal_choices_go_to_the_first(checkpoint):
    row = Example({"question": "What?"}, "yes", ("yes", "yes"), 1)
    rows = [("a", row)]
    [found] = prediction.predict_test(Evaluation(*checkpoint[:2], suite()), task.load("arc_easy"), [], rows, "io", 0)
    assert found["logprobs"][0] == found["logprobs"][1]
    frame = pd.DataFrame([found])
    assert metrics.predicted(frame.assign(protocol="sound")).tolist() == [0]


def test_a_model_whose_numbers_are_none_is_refused(checkpoints):
    model, tokenizer = loading.untouched({"path": str(checkpoints["olmo"].path)})
    model.get_input_embeddings().weight.data.fill_(math.nan)
    for protocol in ("sound", "published"):
        with pytest.raises(StudyError, match=r"^row 'test/0': log-probabilities \[nan, nan, nan\], expected finite"):
            prediction.predict_test(
                Evaluation(model, tokenizer, suite(protocol=protocol)),
                task.load("rte"),
                [],
                inference_rows("test"),
                "io",
                0,
            )


# The published candidates, on the pieces of the OLMo tokenizer

# Every piece with its id there, and the merges that make it; ids of what lies between are nobody's.
OLMO_IDS = {
    "ent": 290, "ail": 647, "ment": 420, "Ġentail": 46518, "neutral": 27912, "Ġneutral": 9238, "contr": 19657, "ad": 324,
    "iction": 2474, "Ġcontradiction": 20620, "yes": 9820, "Ġyes": 4754, "no": 2369, "Ġno": 642,
}  # fmt: skip
OLMO_MERGES = (
    "e n|en t|m ent|a i|ai l|Ġ ent|Ġent ail|n e|ne u|neu t|neut r|neutr a|neutra l|Ġ neutral|c o|co n|con t|cont r|a d|"
    "i c|ic t|i o|io n|ict ion|Ġ contr|Ġcontr ad|Ġcontrad iction|y e|ye s|Ġ yes|n o|Ġ no"
)
OLMO_SIZE, OLMO_END = 50304, 50279


def olmo_tokenizer():
    """A byte-level BPE that cuts the label words into the pieces, and gives them the ids, of OLMo's."""
    merges = [tuple(pair.split()) for pair in OLMO_MERGES.split("|")]
    vocabulary = {letter: 1000 + number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {"".join(pair): 30000 + number for number, pair in enumerate(merges)}
    words = Tokenizer(BPE({**vocabulary, **OLMO_IDS, "<|endoftext|>": OLMO_END}, merges))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>")


def fixed_model(logits):
    """A model with these logits after any text, 0 for tokens that are not named: the bias of its output layer alone."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = PhiConfig(vocab_size=OLMO_SIZE, max_position_embeddings=CONTEXT, partial_rotary_factor=0.5, **sizes)
    model = PhiForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()
        for token, value in logits.items():
            model.lm_head.bias[token] = value
    return model


def paraphrase_rows(split):
    pairs = [({"sentence1": a, "sentence2": b}, ("no", "yes")[number % 2]) for number, (a, b) in enumerate(PAIRS)]
    return [
        (f"{split}/{number}", Example(fields, answer, ("no", "yes"), number % 2))
        for number, (fields, answer) in enumerate(pairs)
    ]


def test_every_piece_of_a_label_is_a_candidate_once():
    """`ment` ends both spellings of entailment, and is one candidate."""
    words = olmo_tokenizer()
    assert prediction.label_tokens(words, LABELS) == [[290, 647, 420, 46518], [27912, 9238], [19657, 324, 2474, 20620]]
    assert prediction.label_tokens(words, ("no", "yes")) == [[2369, 642], [9820, 4754]]


@pytest.mark.parametrize(
    ("logits", "label"),
    [
        ({420: 4, 9238: 3, 20620: 2}, "entailment"),
        ({647: 4, 27912: 3, 20620: 2}, "entailment"),
        ({324: 4, 46518: 3, 9238: 2}, "contradiction"),
        ({2474: 4, 290: 3, 27912: 2}, "contradiction"),
        ({27912: 4, 420: 3, 2474: 3}, "neutral"),
        ({9238: 4, 19657: 3, 20620: 3}, "neutral"),
        ({4754: 9, 642: 8, 46518: 1}, "entailment"),
    ],
)
def test_the_best_piece_brings_its_word(logits, label):
    """Middle pieces (`ail`, `ment`, `ad`, `iction`) count like whole words; words that are no label do not."""
    test = inference_rows("test")
    run = Evaluation(fixed_model(logits), olmo_tokenizer(), suite(protocol="published"))
    found = prediction.predict_test(run, task.load("mnli"), [], test, "io", 0)
    assert {row["output"] for row in found} == {label}
    total = math.log(sum(map(math.exp, logits.values())) + OLMO_SIZE - len(logits))
    pools = [(290, 647, 420, 46518), (27912, 9238), (19657, 324, 2474, 20620)]
    expected = [max(logits.get(token, 0) for token in pool) - total for pool in pools]
    assert found[0]["logprobs"] == pytest.approx(expected, abs=1e-4)


def test_free_text_is_searched_for_labels_in_the_published_order():
    """A model that writes ` no` or `yes` five times over; by hand from the greedy text to the score."""
    test = paraphrase_rows("test")
    for token, text in ((642, " no no no no no"), (9820, "yesyesyesyesyes"), (OLMO_END, "")):
        run = Evaluation(fixed_model({token: 5}), olmo_tokenizer(), suite(protocol="published", labels="generate"))
        found = prediction.predict_test(run, task.load("paws"), [], test, "default", 0)
        assert {(row["output"], row["output_tokens"]) for row in found} == {(text, 5 if text else 0)}
        guess = {"": -1, " n": 0, "ye": 1}[text[:2]]
        assert metrics.predicted(pd.DataFrame(found).assign(protocol="published")).tolist() == [guess] * len(test)


# Labels where a prompt says nothing


def blank_prompts(shown, template):
    return [shown + template.format(text, text) for text in ("N/A", "[MASK]", "")]


@pytest.mark.parametrize("shots", [0, 2])
def test_priors_equal_a_plain_loop(checkpoint, shots):
    """log of the mean over three prompts of the share that a label has among the labels."""
    train, test = inference_rows("train", PAIRS[::-1][:4]), inference_rows("test")
    found = prediction.predict_test(
        Evaluation(*checkpoint[:2], suite()), task.load("rte"), train, test, "default", shots
    )
    shown = shown_sound(lambda example: f"{asked(example)} {example.answer}", train, shots)
    shares = []
    for prompt in blank_prompts(shown, "### Input_1: {}\n ### Input_2: {}\n ### Inference:"):
        likely = [math.exp(loop_logprob(checkpoint, prompt, f" {label}")) for label in LABELS]
        shares.append([value / sum(likely) for value in likely])
    expected = [math.log(sum(own) / 3) for own in zip(*shares, strict=True)]
    assert all(row["priors"] == pytest.approx(expected, abs=1e-4) for row in found)
    assert len({tuple(row["priors"]) for row in found}) == 1 and len(set(expected)) == 3


@pytest.mark.parametrize("format", ["default", "io"])
def test_published_priors_are_those_of_the_pooled_candidates(checkpoint, format):
    test = inference_rows("test")
    settings = suite(protocol="published")
    found = prediction.predict_test(Evaluation(*checkpoint[:2], settings), task.load("rte"), [], test, format, 1)
    template = {"default": "### Input_1: {}\n ### Input_2: {}\n ### Inference: ", "io": "{} {}"}[format]
    shown = template.format(*PAIRS[0]) + "entailment\n"
    shares = []
    for prompt in blank_prompts(shown, template):
        after = last_logprobs(checkpoint, prompt).exp()
        pools = prediction.label_tokens(checkpoint.tokenizer, LABELS)
        likely = [max(float(after[token]) for token in pool) for pool in pools]
        shares.append([value / sum(likely) for value in likely])
    expected = [math.log(sum(own) / 3) for own in zip(*shares, strict=True)]
    assert all(row["priors"] == pytest.approx(expected, abs=1e-4) for row in found)


def test_priors_go_with_the_demonstrations_that_a_prompt_was_left_with(checkpoints):
    """A long row has room for fewer demonstrations than the others, and so another prior: that of a test with so few."""
    run = Evaluation(*checkpoints["olmo"][:2], suite())
    train = inference_rows("train", PAIRS[:1])
    fields = {"premise": "The cat " * 100, "hypothesis": "It can fly."}
    test = [*inference_rows("test"), ("long", Example(fields, "neutral", LABELS, 1))]
    found = prediction.predict_test(run, task.load("mnli"), train, test, "default", 1)
    assert [row["shots_used"] for row in found] == [1] * len(PAIRS) + [0]
    alone = prediction.predict_test(run, task.load("mnli"), train, test, "default", 0)
    assert found[-1]["priors"] == pytest.approx(alone[0]["priors"], abs=1e-5)
    assert abs(found[0]["priors"][0] - found[-1]["priors"][0]) > 0.01


def test_the_prior_of_a_model_that_never_reads_is_its_whole_preference():
    """Calibrated, all labels are equal: the prior is the log-probabilities less those of all labels together."""
    run = Evaluation(fixed_model({642: 3, 4754: 5}), olmo_tokenizer(), suite(protocol="published"))
    found = prediction.predict_test(run, task.load("paws"), [], paraphrase_rows("test"), "default", 2)
    both = math.log(math.exp(3) + math.exp(5))
    for row in found:
        assert row["priors"] == pytest.approx([3 - both, 5 - both], abs=1e-5)
        left = [value - own for value, own in zip(row["logprobs"], row["priors"], strict=True)]
        assert left[0] == pytest.approx(left[1], abs=1e-5)


def test_prior_by_hand():
    """Of two labels .5 and .25 of everything are 2/3 and 1/3 of the labels; .1 and .3 are 1/4 and 3/4; means 11/24, 13/24."""
    values = [[math.log(0.5), math.log(0.25)], [math.log(0.1), math.log(0.3)]]
    assert prediction.prior(values) == pytest.approx([math.log(11 / 24), math.log(13 / 24)])


def test_what_is_not_compared_by_label_has_no_prior(checkpoints):
    run = Evaluation(*checkpoints["olmo"][:2], suite())
    ranked = prediction.predict_test(run, task.load("arc_easy"), [], question_rows("test"), "default", 0)
    run = Evaluation(*checkpoints["olmo"][:2], suite(labels="generate"))
    written = prediction.predict_test(run, task.load("rte"), [], inference_rows("test"), "default", 0)
    assert {tuple(row["priors"]) for row in [*ranked, *written]} == {()}


# Forced labels


@pytest.mark.parametrize("protocol", ["sound", "published"])
@pytest.mark.parametrize("shots", [0, 2])
def test_forced_labels_stand_beside_the_free_text(checkpoint, shots, protocol, tmp_path):
    """Every output holds a label, but where one of the demonstrations' labels will do (`published`)."""
    train, test = inference_rows("train"), inference_rows("test")
    settings = suite(protocol=protocol, tests=["rte"], formats=["default"], shots=[shots])
    tests = {"rte": (task.load("rte"), train, test)}
    forced = list(prediction.predict(*checkpoint[:2], settings | {"labels": "constrained"}, tests))
    free = list(prediction.predict(*checkpoint[:2], settings | {"labels": "generate"}, tests))
    assert [row["free_output"] for row in forced] == [row["output"] for row in free]
    assert all(any(label in row["output"] for label in LABELS) for row in forced) == (protocol == "sound" or shots == 0)
    assert all(row["output_tokens"] <= 5 and not row["logprobs"] for row in forced)
    tables.write(forced, tables.PREDICTIONS, tmp_path / "part.parquet")
    frame = tables.read(tmp_path / "part.parquet")
    how = Resampling(resamples=100, level=0.95, seed=0)
    scores, _ = metrics.scored(frame, settings | {"labels": "constrained"}, how)
    assert {"forced", "accuracy_forced", "accuracy", "most_predicted"} <= {row["metric"] for row in scores}
    named = [metrics.named_label(row["output"], LABELS, protocol) for row in free]
    assert metrics.forced(frame.assign(protocol=protocol)).tolist() == [float(name is None) for name in named]


# Writing


@pytest.mark.parametrize("batch_tokens", [64, 8192])
@pytest.mark.parametrize(("protocol", "shots"), [("sound", 0), ("sound", 2), ("published", 2)])
def test_written_text_equals_generate(checkpoint, protocol, shots, batch_tokens):
    documents = [f"{a} {b}" for a, b in PAIRS]
    rows = [(f"{number}", Example({"document": text}, f"Summary {number}.")) for number, text in enumerate(documents)]
    train, test = rows[4:], rows
    settings = suite(protocol=protocol, batch_tokens=batch_tokens)
    found = prediction.predict_test(
        Evaluation(*checkpoint[:2], settings), task.load("xsum"), train, test, "default", shots
    )
    cue, gap = ("### Summary:", " ") if protocol == "sound" else ("### Summary: ", "")
    drawn = random.Random(3).sample(train, shots) if protocol == "sound" else test[:shots]
    end = "\n\n" if protocol == "sound" else "\n"
    shown = "".join(f"### Input: {row.fields['document']}\n {cue}{gap}{row.answer}{end}" for _, row in drawn)
    for row, text in zip(found, documents, strict=True):
        ids = loop_greedy(checkpoint, f"{shown}### Input: {text}\n {cue}", 12)
        expected = checkpoint.tokenizer.decode(ids, skip_special_tokens=True)
        stopped = [expected.index(stop) for stop in ("\n\n", "###") if stop in expected and protocol == "sound"]
        assert row["output"] == (expected[: min(stopped, default=None)].strip() if protocol == "sound" else expected)
        assert row["output_tokens"] == len(ids) or stopped


@pytest.mark.parametrize("batch_tokens", [1, 4000])
def test_greedy_equals_generate_token_for_token_and_ends_at_eos(checkpoint, batch_tokens):
    texts = [f"{a} {b}" for a, b in PAIRS] + ["Dora", "The fox sings.", "yes or no", "Question: What eats fish?\n"]
    contexts = [checkpoint.tokenizer(text)["input_ids"] for text in texts]
    found = generation.greedy(checkpoint.model, checkpoint.tokenizer, contexts, 20, (), batch_tokens)
    assert found == [loop_greedy(checkpoint, text, 20) for text in texts]
    assert len({tuple(ids) for ids in found}) > 4, "outputs differ between prompts"
    assert {len(ids) < 20 for ids in found} == {True, False}, "some end by EOS, some by the limit"


def test_a_checkpoint_s_own_generation_settings_do_not_matter(checkpoints):
    model, tokenizer = loading.untouched({"path": str(checkpoints["olmo2"].path)})
    contexts = [tokenizer(f"{a} {b}")["input_ids"] for a, b in PAIRS]
    own = GenerationConfig(repetition_penalty=5.0, num_beams=3, do_sample=True, top_k=2, max_length=3)
    model.generation_config = own
    found = generation.greedy(model, tokenizer, contexts, 20, (), 4000)
    assert found == [loop_greedy(checkpoints["olmo2"], f"{a} {b}", 20) for a, b in PAIRS]
    assert model.generation_config is own and own.repetition_penalty == 5.0


def test_stop_strings_only_cut(checkpoint):
    """With stop strings each output is the shortest start of the free output that holds one, in any batch."""
    tokenizer = checkpoint.tokenizer
    texts = [f"{a} {b}" for a, b in PAIRS] + ["Dora", "The fox sings.", "yes or no"]
    contexts = [tokenizer(text)["input_ids"] for text in texts]
    free = [loop_greedy(checkpoint, text, 20) for text in texts]
    longest = tokenizer.decode(max(free, key=len), skip_special_tokens=True)
    stops = (longest[6:8], longest[-3:-1])
    expected = []
    for ids in free:
        starts = [ids[:end] for end in range(1, len(ids))]
        held = (start for start in starts if any(stop in tokenizer.decode(start) for stop in stops))
        expected.append(next(held, ids))
    assert sum(map(len, expected)) < sum(map(len, free))
    for batch_tokens in (1, 4000):
        assert generation.greedy(checkpoint.model, tokenizer, contexts, 20, stops, batch_tokens) == expected


@pytest.mark.parametrize(
    ("text", "output"),
    [(" a b \n\n c", "a b"), ("a ### b\n\nc", "a"), ("a\n\n### b", "a"), ("\n\na", ""), (" a # b ", "a # b"), ("", "")],
)
def test_text_is_cut_at_its_first_stop(text, output):
    assert prediction.cut_at_stop(text, ("\n\n", "###")) == output


def test_labels_are_written_in_five_tokens(checkpoint):
    test = inference_rows("test")
    settings = suite(labels="generate", protocol="published")
    found = prediction.predict_test(Evaluation(*checkpoint[:2], settings), task.load("rte"), [], test, "io", 0)
    for row, (_, example) in zip(found, test, strict=True):
        ids = loop_greedy(checkpoint, "{premise} {hypothesis}".format_map(example.fields), 5)
        assert row["output"] == checkpoint.tokenizer.decode(ids, skip_special_tokens=True)
        assert (row["logprobs"], row["output_tokens"]) == ([], len(ids))


# Demonstrations and samples


TRAIN = [(f"train/{number}", Example({}, str(number))) for number in range(20)]
TEST = [(f"test/{number}", Example({}, str(number))) for number in range(30)]


def test_sound_demonstrations_come_from_train_and_depend_on_the_seed():
    shown, unscored = prediction.demonstrations(TRAIN, TEST, 4, 0, "sound")
    assert len(shown) == 4 and all(row in TRAIN for row in shown)
    assert unscored == set()
    assert prediction.demonstrations(TRAIN, TEST, 4, 0, "sound") == (shown, set())
    draws = [prediction.demonstrations(TRAIN, TEST, 4, seed, "sound")[0] for seed in range(9)]
    assert len({tuple(row for row, _ in draw) for draw in draws}) == 9


def test_without_train_demonstrations_are_test_rows_that_are_not_scored(checkpoints):
    shown, unscored = prediction.demonstrations([], TEST, 4, 1, "sound")
    assert {row for row, _ in shown} == unscored and len(unscored) == 4
    test = inference_rows("test")
    model, tokenizer, _ = checkpoints["olmo"]
    found = prediction.predict_test(Evaluation(model, tokenizer, suite()), task.load("gpt3_nli"), [], test, "io", 2)
    drawn = prediction.demonstrations([], test, 2, 3, "sound")[1]
    assert [row["id"] for row in found] == [row for row, _ in test if row not in drawn] and len(found) == 5


def test_published_demonstrations_are_the_first_rows_and_are_scored(checkpoints):
    assert prediction.demonstrations(TRAIN, TEST, 2, 5, "published") == (TEST[:2], set())
    test = inference_rows("test")
    model, tokenizer, _ = checkpoints["olmo"]
    settings = suite(protocol="published")
    found = prediction.predict_test(Evaluation(model, tokenizer, settings), task.load("rte"), test, test, "io", 2)
    assert [row["id"] for row in found] == [row for row, _ in test]


def test_no_more_demonstrations_than_rows():
    shown, unscored = prediction.demonstrations(TRAIN[:2], TEST, 5, 0, "sound")
    assert sorted(row for row, _ in shown) == ["train/0", "train/1"] and not unscored


def test_a_sample_keeps_the_order_and_depends_on_the_seed_alone():
    drawn = prediction.sample(TEST, 10, 0)
    assert len(drawn) == 10 and drawn == [row for row in TEST if row in drawn]
    assert drawn == prediction.sample(TEST, 10, 0) != prediction.sample(TEST, 10, 1)
    assert prediction.sample(TEST, None, 0) == prediction.sample(TEST, 30, 0) == prediction.sample(TEST, 99, 0) == TEST


def test_a_test_whose_rows_are_all_shown_is_refused(checkpoints):
    model, tokenizer, _ = checkpoints["olmo"]
    settings = suite(tests=["gpt3_nli"], formats=["io"], shots=[7])
    tests = {"gpt3_nli": (task.load("gpt3_nli"), [], inference_rows("test"))}
    with pytest.raises(
        StudyError, match=r"^test 'gpt3_nli': 7 few-shot examples take all 7 rows; allowed: fewer than 7$"
    ):
        list(prediction.predict(model, tokenizer, settings, tests))


# Room


def test_a_prompt_that_fits_with_its_longest_choice_is_not_cut(checkpoint):
    """The context of 256 tokens is used to the last; one token more, and the field loses its beginning."""
    model, tokenizer, _ = checkpoint
    choices = ("the owl in the barn", "Ann")
    cue = len(tokenizer("Question: \nAnswer:")["input_ids"])
    longest = len(tokenizer(f" {choices[0]}", add_special_tokens=False)["input_ids"])
    filler = " cat" * 300
    for surplus in (0, 1):
        kept = tokenizer.decode(
            tokenizer(filler, add_special_tokens=False)["input_ids"][: CONTEXT - longest - cue + surplus]
        )
        row = Example({"question": kept}, "Ann", choices, 1)
        settings = suite(new_tokens=60)
        [found] = prediction.predict_test(
            Evaluation(model, tokenizer, settings), task.load("arc_easy"), [], [("a", row)], "default", 0
        )
        whole = len(tokenizer(f"Question: {kept}\nAnswer:")["input_ids"])
        assert (whole - CONTEXT + longest, found["truncated"]) in ((0, False), (1, True))
        assert found["prompt_tokens"] == CONTEXT - longest == whole - surplus


def test_a_prompt_leaves_room_for_what_is_written(checkpoints):
    model, tokenizer, _ = checkpoints["olmo"]
    row = Example({"document": "A cat sleeps in the barn. " * 60}, "A cat.")
    [found] = prediction.predict_test(
        Evaluation(model, tokenizer, suite(new_tokens=40)), task.load("xsum"), [], [("a", row)], "default", 0
    )
    assert found["truncated"] and CONTEXT - 40 - 3 <= found["prompt_tokens"] <= CONTEXT - 40


# lm-evaluation-harness

HAND_MADE = {
    "arc_easy": [
        {"id": str(number), "question": question, "choices": {"text": list(texts), "label": list("ABCD")[: len(texts)]},
         "answerKey": "ABCD"[gold]}
        for number, (question, texts, gold) in enumerate(QUESTIONS)
    ],
    "hellaswag": [
        {"ind": number, "activity_label": "Barn: rest", "ctx_a": f"{name} has a cat.", "ctx_b": context,
         "endings": ["[title] sits down. [step] It sings.", "swims  in the river.", "can fly.", "Ça va 😀."], "label": label}
        for number, (name, context, label) in enumerate([("Ann", "the cat", "3"), ("Bo", "", "0"), ("Cy", "it", "2")])
    ],
    "sciq_choice": [
        {"question": "What can fly?", "support": " Owls fly.", "correct_answer": "owl",
         "distractor1": "trout", "distractor2": "zebra in the barn", "distractor3": "a fox"},
        {"question": "Who sings?", "support": "", "correct_answer": "zoe",
         "distractor1": "dora", "distractor2": "ann and bo", "distractor3": "cy"},
    ],
    "boolq": [
        {"question": question, "passage": passage, "answer": answer}
        for question, passage, answer in [
            ("can an owl fly", "An owl is a bird.", True),
            ("does a trout sing", "A trout swims in the river.", False),
            ("is Ann a cat", "Ann has a cat.", False),
        ]
    ],
}  # fmt: skip
TEMPLATES = {
    "arc_easy": "arc/arc_easy.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "sciq_choice": "sciq/sciq.yaml",
    "boolq": "super_glue/boolq/default.yaml",
}


def ranked_rows(name, tokenizer):
    """Hand-made rows of a dataset, and real ones that fit the small context where the sample is there."""
    read = task.load(name)
    path = task.split_files(DATA, read, name, "validation")[0]
    real = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def length(row):
        example = read.read(row)
        return len(tokenizer("\n".join([*example.fields.values(), max(example.choices, key=len)]))["input_ids"])

    return HAND_MADE[name] + [row for row in real if length(row) < CONTEXT - 30][:25]


def harness_results(name, rows, checkpoint, folder):
    """Accuracies and per-row results of lm-evaluation-harness's own task, with its rows read from a local file."""
    # The harness cannot sort SciQ's options, whose right one is the last there; the place of a choice changes no accuracy.
    labelled = [{**row, "label": int(row["answer"])} if name == "boolq" else row for row in rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    settings = {
        "include": str(HARNESS / TEMPLATES[name]),
        "task": f"local_{name}",
        "tag": None,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": str(folder / "rows.jsonl")}},
        "training_split": None,
        "test_split": None,
        "metric_list": [{"metric": metric} for metric in ("acc", "acc_norm", "acc_bytes")],
    }
    (folder / f"local_{name}.yaml").write_text(yaml.safe_dump(settings))
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=checkpoint.model, tokenizer=checkpoint.tokenizer, batch_size=4, device="cpu"),
        tasks=[f"local_{name}"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )
    return found["results"][f"local_{name}"], found["samples"][f"local_{name}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        *(("arc_easy", architecture) for architecture in ARCHITECTURES),
        *((name, "olmo") for name in TEMPLATES if name != "arc_easy"),
    ],
)
def test_accuracies_equal_lm_evaluation_harness(name, architecture, checkpoints, tmp_path, monkeypatch):
    checkpoint = checkpoints[architecture]
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = ranked_rows(name, checkpoint.tokenizer)
    results, samples = harness_results(name, rows, checkpoint, tmp_path)
    read = task.load(name)
    prepared = task.canonical(read, "validation", (("row", row) for row in rows))
    test = [(row["id"], task.example_of(row)) for row in prepared]
    settings = {**suite(), "tests": [name], "formats": ["default"], "shots": [0]}
    found = list(prediction.predict(*checkpoint[:2], settings, {name: (read, [], test)}))
    for row, sample in zip(found, sorted(samples, key=lambda sample: sample["doc_id"]), strict=True):
        theirs = dict(zip([request[1] for request in sample["arguments"]], sample["filtered_resps"], strict=True))
        assert row["logprobs"] == pytest.approx(
            [float(theirs[f" {choice}"][0]) for choice in row["choices"]], abs=1e-4, rel=0
        )
    tables.write(found, tables.PREDICTIONS, tmp_path / "part.parquet")
    frame = tables.read(tmp_path / "part.parquet").assign(protocol="sound")
    assert metrics.accuracy(frame).mean() == pytest.approx(results["acc,none"], abs=1e-12)
    assert metrics.accuracy_per_byte(frame).mean() == pytest.approx(results["acc_bytes,none"], abs=1e-12)
    if all(choice.isascii() for _, example in test for choice in example.choices):
        assert metrics.accuracy_per_byte(frame).mean() == pytest.approx(results["acc_norm,none"], abs=1e-12)


@pytest.mark.slow
def test_choices_without_a_prompt_are_those_of_lm_evaluation_harness(checkpoints):
    checkpoint = checkpoints["llama"]
    rows = question_rows("validation")
    settings = {
        **suite(metrics=["accuracy_unconditional"]),
        "tests": ["arc_easy"],
        "formats": ["default"],
        "shots": [0],
    }
    found = list(prediction.predict(*checkpoint[:2], settings, {"arc_easy": (task.load("arc_easy"), [], rows)}))
    harness = HFLM(pretrained=checkpoint.model, tokenizer=checkpoint.tokenizer, batch_size=1, device="cpu")
    for row in found:
        asked = [
            Instance(request_type="loglikelihood", doc={}, arguments=("", f" {choice}"), idx=number)
            for number, choice in enumerate(row["choices"])
        ]
        expected = [value for value, _ in harness.loglikelihood(asked, disable_tqdm=True)]
        assert row["priors"] == pytest.approx(expected, abs=1e-4, rel=0)
    plain = list(prediction.predict(*checkpoint[:2], suite(**{key: settings[key] for key in ("tests", "formats", "shots")}),
                                    {"arc_easy": (task.load("arc_easy"), [], rows)}))  # fmt: skip
    assert [row["priors"] for row in plain] == [[] for _ in rows]
    assert [row["logprobs"] for row in plain] == [row["logprobs"] for row in found]
