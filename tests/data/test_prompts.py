"""Prompts and demonstrations, letter by letter: what the published study used, and what the sound protocol makes of it."""

import pytest

from workflow import task
from workflow.data import prompts
from workflow.task import Example

# (task, format) -> its prompt for FIELDS below in the published study (arXiv 2408.06663, released code). The space at the
# end, where there is one, belongs to it; where spaces are missing inside, they are missing there.
FIELDS = {
    "summary": {"document": "Rain fell."},
    "inference": {"premise": "A man sleeps.", "hypothesis": "A man runs."},
    "paraphrase": {"sentence1": "He met her.", "sentence2": "She met him."},
    "social_iqa": {"context": "Alex fell.", "answerA": "hurt", "answerB": "glad", "answerC": "calm"},
    "tweet_qa": {"context": "Ann won!", "answer": "Ann"},
    "sciq": {
        "support": "Ice is frozen.",
        "correct_answer": "ice",
        "distractor1": "steam",
        "distractor2": "rain",
        "distractor3": "fog",
    },
}
SUMMARY = {
    "default": "### Input: Rain fell.\n ### Summary: ",
    "instruct": "Please read the following text: Rain fell. Provide a summary: ",
    "io": "Rain fell.",
}
INFERENCE = {
    "default": "### Input_1: A man sleeps.\n ### Input_2: A man runs.\n ### Inference: ",
    "instruct": "Consider the following texts: Text 1: A man sleeps. Text 2: A man runs. The relation is ",
    "io": "A man sleeps. A man runs.",
}
PARAPHRASE = {
    "default": "### Input_1: He met her.\n ### Input_2: She met him.\n ### Paraphrase Classification: ",
    "instruct": (
        "Let’s compare the two sentences: Sentence_1: He met her. Sentence_2: She met him. Are they paraphrasing?: "
    ),
    "io": "He met her. She met him.",
}
PUBLISHED = {
    "xsum": SUMMARY,
    "xlsum_english": SUMMARY,
    "cnn_dailymail": {format: SUMMARY[format] for format in ("default", "instruct")},
    "social_iqa": {
        "default": ("### Input: Alex fell.\n ### Answer: Answer A: hurt Answer B: gladAnswer C: calm\n ### Question: "),
        "instruct": (
            "Given the context: Alex fell. And the answer: "
            "Answer A: hurt Answer B: gladAnswer C: calmGenerate a suitable question: "
        ),
        "io": "Alex fell.hurtgladcalm",
    },
    "sciq": {
        "default": (
            "### Input: Ice is frozen.\n ### Answer: "
            "Answer A: ice Answer B: steam Answer C: rainAnswer D: fog\n ### Question: "
        ),
        "instruct": (
            "Given the context: Ice is frozen. And the answer: "
            "Answer A: ice Answer B: steamAnswer C: rainAnswer D: fogGenerate a suitable question: "
        ),
    },
    "tweet_qa": {
        "default": "### Input: Ann won!\n ### Answer: Ann\n ### Question: ",
        "instruct": "Given the context: Ann won! And the answer: AnnGenerate a suitable question: ",
    },
    "mnli": INFERENCE,
    "mnli_mismatched": INFERENCE,
    "rte": {format: INFERENCE[format] for format in ("default", "instruct")},
    "gpt3_nli": {format: INFERENCE[format] for format in ("default", "instruct")},
    "paws": PARAPHRASE,
    "qqp": {format: PARAPHRASE[format] for format in ("default", "instruct")},
    "stsb": {format: PARAPHRASE[format] for format in ("default", "instruct")},
}
CASES = [(name, format) for name, formats in PUBLISHED.items() for format in formats]

# Formats and tasks for which the published study has no string.
CHOSEN = [
    ("tweet_qa", "io", FIELDS["tweet_qa"], "Ann won!Ann"),
    ("sciq", "io", FIELDS["sciq"], "Ice is frozen.icesteamrainfog"),
    ("arc_easy", "default", {"question": "What is ice?"}, "Question: What is ice?\nAnswer:"),
    ("arc_easy", "io", {"question": "What is ice?"}, "What is ice?"),
    (
        "openbookqa",
        "instruct",
        {"question": "Ice is"},
        "Please answer the following question: Ice is The answer is",
    ),
    ("piqa", "default", {"question": "Cool tea."}, "Question: Cool tea.\nAnswer:"),
    ("sciq_choice", "default", {"support": "Ice.", "question": "What?"}, "Ice.\nQuestion: What?\nAnswer:"),
    ("sciq_choice", "default", {"support": "", "question": "What?"}, "\nQuestion: What?\nAnswer:"),
    ("sciq_choice", "io", {"support": "Ice.", "question": "What?"}, "Ice. What?"),
    ("boolq", "default", {"passage": "Ice.", "question": "is it"}, "Ice.\nQuestion: is it?\nAnswer:"),
    (
        "boolq",
        "instruct",
        {"passage": "Ice.", "question": "is it"},
        "Please read the following text: Ice. Answer the following question: is it? The answer is",
    ),
    ("hellaswag", "default", {"context": "Tea: A man"}, "Tea: A man"),
    ("hellaswag", "instruct", {"context": "Tea: A man"}, "Please continue the following text: Tea: A man"),
    ("winogrande", "default", {"beginning": "It rained so"}, "It rained so"),
    (
        "winogrande",
        "instruct",
        {"beginning": "It rained so"},
        "Please complete the following sentence: It rained so",
    ),
]


def fields_of(name: str) -> dict[str, str]:
    return FIELDS.get(name) or FIELDS[task.load(name).kind]


def test_the_published_study_has_13_test_sets_six_of_them_in_three_formats():
    assert len(PUBLISHED) == 13
    assert sorted(name for name, formats in PUBLISHED.items() if "io" in formats) == [
        "mnli",
        "mnli_mismatched",
        "paws",
        "social_iqa",
        "xlsum_english",
        "xsum",
    ]


@pytest.mark.parametrize(("name", "format"), CASES)
def test_published_prompt(name, format):
    assert prompts.prompt(task.load(name), fields_of(name), format, "published") == PUBLISHED[name][format]


@pytest.mark.parametrize(("name", "format"), CASES)
def test_sound_prompt_leaves_the_last_space_to_the_completion(name, format):
    prompt = prompts.prompt(task.load(name), fields_of(name), format)
    assert prompt + (" " if format != "io" else "") == PUBLISHED[name][format]
    assert not prompt.endswith(" ")
    assert prompts.completion("word") == " word"


@pytest.mark.parametrize(("name", "format", "fields", "prompt"), CHOSEN)
def test_prompt_without_a_published_string(name, format, fields, prompt):
    assert prompts.prompt(task.load(name), fields, format) == prompt


DEMONSTRATIONS = [
    ("default", "published", "### Input_1: A\n ### Input_2: B\n ### Inference: neutral\n"),
    ("default", "sound", "### Input_1: A\n ### Input_2: B\n ### Inference: neutral\n\n"),
    ("io", "published", "A Bneutral\n"),
    ("io", "sound", "A B neutral\n\n"),
    ("instruct", "published", "Consider the following texts: Text 1: A Text 2: B The relation is neutral\n"),
    ("instruct", "sound", "Consider the following texts: Text 1: A Text 2: B The relation is neutral\n\n"),
]


@pytest.mark.parametrize(("format", "protocol", "text"), DEMONSTRATIONS)
def test_demonstration_of_inference(format, protocol, text):
    example = Example(
        fields={"premise": "A", "hypothesis": "B"},
        answer="neutral",
        choices=("entailment", "neutral", "contradiction"),
        gold=1,
    )
    assert prompts.demonstration(task.load("rte"), example, format, protocol) == text


@pytest.mark.parametrize(
    ("format", "protocol", "text"),
    [
        ("default", "published", "### Input: Rain fell.\n ### Summary: Floods came.\n"),
        ("default", "sound", "### Input: Rain fell.\n ### Summary: Floods came.\n\n"),
        ("io", "published", "Rain fell.Floods came.\n"),
        ("io", "sound", "Rain fell. Floods came.\n\n"),
    ],
)
def test_demonstration_of_summary(format, protocol, text):
    example = Example(fields={"document": "Rain fell."}, answer="Floods came.")
    assert prompts.demonstration(task.load("xsum"), example, format, protocol) == text


@pytest.mark.parametrize("protocol", prompts.PROTOCOLS)
@pytest.mark.parametrize("format", ["default", "io"])
def test_demonstration_of_winogrande_is_the_solved_sentence(format, protocol):
    row = {"sentence": "Ann thanked Bo because _ had helped.", "option1": "Ann", "option2": "Bo", "answer": "2"}
    found = task.load("winogrande")
    solved = prompts.demonstration(found, found.read(row), format, protocol)
    assert solved.rstrip("\n") == "Ann thanked Bo because Bo had helped."


def test_braces_in_a_field_are_text():
    assert prompts.prompt(task.load("xsum"), {"document": "a {document} {0}"}, "io") == "a {document} {0}"
