"""Every task: its contract, one hand-made row of each dataset, every real row, and rows that must be refused."""

import json
import os
from collections import Counter
from pathlib import Path

import lm_eval
import pytest
from lm_eval.tasks.hellaswag.utils import preprocess
from lm_eval.tasks.winogrande.preprocess_winogrande import doc_to_choice, doc_to_target
from lm_eval.utils import apply_template

from workflow import task
from workflow.data import prompts
from workflow.errors import StudyError
from workflow.storage import tables

DATA = Path(os.environ.get("TUNECAST_DATA", Path(__file__).parents[3] / "shared" / "data"))
LETTERED = {"text": ["ice", "steam", "rain"], "label": ["A", "B", "C"]}

# task -> (a row as on the hub, what it is read as)
ROWS = {
    "mnli": (
        {"premise": "A man sleeps.", "hypothesis": "A man runs.", "label": 2, "idx": 7},
        task.Example(
            fields={"premise": "A man sleeps.", "hypothesis": "A man runs."},
            answer="contradiction",
            choices=("entailment", "neutral", "contradiction"),
            gold=2,
        ),
    ),
    "mnli_mismatched": (
        {"premise": "A man sleeps.", "hypothesis": "A man rests.", "label": 0, "idx": 7},
        task.Example(
            fields={"premise": "A man sleeps.", "hypothesis": "A man rests."},
            answer="entailment",
            choices=("entailment", "neutral", "contradiction"),
            gold=0,
        ),
    ),
    "rte": (
        {"sentence1": "It rains in Bonn.", "sentence2": "It snows in Bonn.", "label": 1, "idx": 0},
        task.Example(
            fields={"premise": "It rains in Bonn.", "hypothesis": "It snows in Bonn."},
            answer="neutral",
            choices=("entailment", "neutral", "contradiction"),
            gold=1,
        ),
    ),
    "gpt3_nli": (
        {"text_a": "She sings.", "text_b": "She sings a song.", "label": 1, "guid": 3},
        task.Example(
            fields={"premise": "She sings.", "hypothesis": "She sings a song."},
            answer="neutral",
            choices=("entailment", "neutral", "contradiction"),
            gold=1,
        ),
    ),
    "paws": (
        {"id": 1, "sentence1": "He met her .", "sentence2": "She met him .", "label": 1},
        task.Example(
            fields={"sentence1": "He met her .", "sentence2": "She met him ."},
            answer="yes",
            choices=("no", "yes"),
            gold=1,
        ),
    ),
    "qqp": (
        {"question1": "What is tea?", "question2": "Who grows tea?", "label": 0, "idx": 5},
        task.Example(
            fields={"sentence1": "What is tea?", "sentence2": "Who grows tea?"},
            answer="no",
            choices=("no", "yes"),
            gold=0,
        ),
    ),
    "stsb": (
        {"sentence1": "A dog runs.", "sentence2": "A dog is running.", "label": 3.6, "idx": 5},
        task.Example(
            fields={"sentence1": "A dog runs.", "sentence2": "A dog is running."},
            answer="yes",
            choices=("no", "yes"),
            gold=1,
        ),
    ),
    "xsum": (
        {"document": "Rain fell.\nRivers rose.", "summary": "Floods came.", "id": "1"},
        task.Example(fields={"document": "Rain fell.\nRivers rose."}, answer="Floods came."),
    ),
    "xlsum_english": (
        {"id": "1", "url": "", "title": "", "summary": "Floods came.", "text": "Rain fell."},
        task.Example(fields={"document": "Rain fell."}, answer="Floods came."),
    ),
    "cnn_dailymail": (
        {"article": "(CNN)Rain fell.", "highlights": "Rain .\nFloods .", "id": "1"},
        task.Example(fields={"document": "(CNN)Rain fell."}, answer="Rain .\nFloods ."),
    ),
    "social_iqa": (
        {
            "context": "Alex fell.",
            "question": "How does Alex feel?",
            "answerA": "hurt",
            "answerB": "glad",
            "answerC": "calm",
            "label": "1",
        },
        task.Example(
            fields={"context": "Alex fell.", "answerA": "hurt", "answerB": "glad", "answerC": "calm"},
            answer="How does Alex feel?",
        ),
    ),
    "tweet_qa": (
        {"Question": "who won?", "Answer": ["Ann", "ann smith"], "Tweet": "Ann won!", "qid": "x"},
        task.Example(fields={"context": "Ann won!", "answer": "Ann"}, answer="who won?"),
    ),
    "sciq": (
        {
            "question": "What is frozen water?",
            "distractor3": "fog",
            "distractor1": "steam",
            "distractor2": "rain",
            "correct_answer": "ice",
            "support": "",
        },
        task.Example(
            fields={
                "support": "",
                "correct_answer": "ice",
                "distractor1": "steam",
                "distractor2": "rain",
                "distractor3": "fog",
            },
            answer="What is frozen water?",
        ),
    ),
    "sciq_choice": (
        {
            "question": "What is frozen water?",
            "distractor3": "fog",
            "distractor1": "steam",
            "distractor2": "rain",
            "correct_answer": "ice",
            "support": " Ice is frozen.",
        },
        task.Example(
            fields={"support": "Ice is frozen.", "question": "What is frozen water?"},
            answer="ice",
            choices=("fog", "ice", "rain", "steam"),
            gold=1,
        ),
    ),
    "arc_easy": (
        {
            "id": "NYSEDREGENTS_1",
            "question": "What is frozen water?",
            "choices": {"text": ["steam", "ice"], "label": ["1", "2"]},
            "answerKey": "2",
        },
        task.Example(fields={"question": "What is frozen water?"}, answer="ice", choices=("steam", "ice"), gold=1),
    ),
    "arc_challenge": (
        {"id": "M_1", "question": "What falls?", "choices": LETTERED, "answerKey": "C"},
        task.Example(fields={"question": "What falls?"}, answer="rain", choices=("ice", "steam", "rain"), gold=2),
    ),
    "openbookqa": (
        {"id": "7-1", "question_stem": "Frozen water is", "choices": LETTERED, "answerKey": "A"},
        task.Example(fields={"question": "Frozen water is"}, answer="ice", choices=("ice", "steam", "rain"), gold=0),
    ),
    "hellaswag": (
        {
            "ind": 1,
            "activity_label": "Health",
            "ctx_a": "[header] How to rest [title] Lie down. [step] Breathe.",
            "ctx_b": "the Nurse",
            "endings": ["[title] Sit. [step] Now.", "sleeps.", "runs  off.", "waits."],
            "label": "1",
        },
        task.Example(
            fields={"context": "Health: How to rest. Lie down. Breathe. The nurse"},
            answer="sleeps.",
            choices=(" Sit. Now.", "sleeps.", "runs off.", "waits."),
            gold=1,
        ),
    ),
    "boolq": (
        {"question": "is ice water", "answer": True, "passage": "Ice is frozen water."},
        task.Example(
            fields={"passage": "Ice is frozen water.", "question": "is ice water"},
            answer="yes",
            choices=("no", "yes"),
            gold=1,
        ),
    ),
    "piqa": (
        {"goal": "Cool tea.", "sol1": "Add ice. ", "sol2": "Add fire.", "label": 0},
        task.Example(fields={"question": "Cool tea."}, answer="Add ice. ", choices=("Add ice. ", "Add fire."), gold=0),
    ),
    "winogrande": (
        {"sentence": "Ann thanked Bo because _ had helped. ", "option1": "Ann", "option2": "Bo", "answer": "2"},
        task.Example(
            fields={"beginning": "Ann thanked Bo because"},
            answer=" had helped.",
            choices=(" had helped.", " had helped."),
            gold=1,
            leads=("Ann", "Bo"),
        ),
    ),
    "nq_open": (
        {"question": "who met bo", "answer": ["Ann", "Ann Lee", "Ann "]},
        task.Example(fields={"question": "who met bo"}, answer="Ann", choices=("Ann", "Ann Lee"), gold=0),
    ),
    "trivia_qa": (
        {"question": "Who met Bo?", "answer": {"value": "Ann Lee", "aliases": ["Ann", "Ann Lee", ""]}},
        task.Example(fields={"question": "Who met Bo?"}, answer="Ann Lee", choices=("Ann Lee", "Ann"), gold=0),
    ),
    "hotpot_qa": (
        {"id": "5a", "question": "Who met Bo?", "answer": "Ann", "level": "hard"},
        task.Example(fields={"question": "Who met Bo?"}, answer="Ann", choices=("Ann",), gold=0),
    ),
    "two_wiki_multihop_qa": (
        {"_id": "5a", "question": "Who met Bo?", "answer": "Ann"},
        task.Example(fields={"question": "Who met Bo?"}, answer="Ann", choices=("Ann",), gold=0),
    ),
    "tulu": (
        {
            "dataset": "own",
            "id": "own_1",
            "messages": [
                {"role": "system", "content": "Be brief.\n"},
                {"role": "user", "content": " What falls?"},
                {"role": "assistant", "content": "Rain."},
            ],
        },
        task.Example(
            fields={},
            answer="",
            turns=(("system", "Be brief."), ("user", "What falls?"), ("assistant", "Rain.")),
        ),
    ),
}

ROWS |= {f"{name}_context": ROWS[name] for name in ("nq_open", "trivia_qa", "hotpot_qa", "two_wiki_multihop_qa")}

MISSING = object()
# (task, what is changed in its row above, what the message says of it)
MISFITS = [
    ("mnli", {"label": -1}, "field 'label': found -1, expected one of 0, 1, 2"),
    ("mnli", {"label": True}, "field 'label': found True, expected a value of type int"),
    ("mnli", {"label": "1"}, "field 'label': found '1', expected a value of type int"),
    ("mnli", {"premise": None}, "field 'premise': found None, expected text that is not blank"),
    ("mnli", {"hypothesis": " "}, "field 'hypothesis': found ' ', expected text that is not blank"),
    ("mnli", {"label": MISSING}, "field 'label': found None, expected a value: the field is missing"),
    ("nq_open", {"answer": []}, "field 'answer': found [], expected at least one answer"),
    (
        "trivia_qa",
        {"answer": {"value": " ", "aliases": []}},
        "field 'answer.value': found ' ', expected text that is not blank",
    ),
    ("rte", {"label": 2}, "field 'label': found 2, expected one of 0, 1"),
    ("paws", {"label": 1.0}, "field 'label': found 1.0, expected a value of type int"),
    ("qqp", {"label": -1}, "field 'label': found -1, expected one of 0, 1"),
    ("stsb", {"label": -1.0}, "field 'label': found -1.0, expected a score from 0 to 5"),
    ("stsb", {"label": 5.1}, "field 'label': found 5.1, expected a score from 0 to 5"),
    ("stsb", {"label": float("nan")}, "field 'label': found nan, expected a finite number"),
    ("xsum", {"summary": ""}, "field 'summary': found '', expected text that is not blank"),
    ("cnn_dailymail", {"article": 3}, "field 'article': found 3, expected text that is not blank"),
    ("tweet_qa", {"Answer": []}, "field 'Answer': found [], expected at least one answer"),
    ("tweet_qa", {"Answer": "Ann"}, "field 'Answer': found 'Ann', expected a list"),
    ("tweet_qa", {"Answer": ["Ann", ""]}, "field 'Answer[1]': found '', expected text that is not blank"),
    ("sciq", {"support": None}, "field 'support': found None, expected a value of type str"),
    ("arc_easy", {"answerKey": "A"}, "field 'answerKey': found 'A', expected one of '1', '2'"),
    (
        "arc_easy",
        {"choices": ["steam", "ice"]},
        "field 'choices': found ['steam', 'ice'], expected an object with text, label",
    ),
    (
        "arc_easy",
        {"choices": {"text": ["steam", ""], "label": ["1", "2"]}},
        "field 'choices.text[1]': found '', expected text that is not blank",
    ),
    (
        "arc_challenge",
        {"choices": {"text": ["steam", "ice"], "label": ["A"]}},
        "field 'choices.label': found ['A'], expected one label for each of the 2 options",
    ),
    ("hellaswag", {"label": ""}, "field 'label': found '', expected one of '0', '1', '2', '3'"),
    ("hellaswag", {"label": "12"}, "field 'label': found '12', expected one of '0', '1', '2', '3'"),
    ("hellaswag", {"endings": ["a", "b"]}, "field 'endings': found ['a', 'b'], expected four endings"),
    ("boolq", {"answer": 1}, "field 'answer': found 1, expected a value of type bool"),
    ("piqa", {"label": -1}, "field 'label': found -1, expected one of 0, 1"),
    ("winogrande", {"answer": ""}, "field 'answer': found '', expected one of '1', '2'"),
    ("winogrande", {"sentence": "Ann."}, "field 'sentence': found 'Ann.', expected a sentence with one blank '_'"),
    (
        "winogrande",
        {"sentence": "_ met _."},
        "field 'sentence': found '_ met _.', expected a sentence with one blank '_'",
    ),
    ("winogrande", {"sentence": "It was _"}, "field 'sentence': found 'It was _', expected text after the blank '_'"),
    ("tulu", {"messages": []}, "field 'messages': found [], expected at least one message"),
    ("tulu", {"messages": "Hello"}, "field 'messages': found 'Hello', expected a list"),
    (
        "tulu",
        {"messages": [{"role": "user", "content": "Hello"}, {"role": "tool", "content": "1"}]},
        "field 'messages[1].role': found 'tool', expected one of 'system', 'user', 'assistant'",
    ),
    (
        "tulu",
        {"messages": [{"role": "user"}]},
        "field 'messages[0].content': found None, expected a value: the field is missing",
    ),
    (
        "tulu",
        {"messages": [{"role": "user", "content": None}]},
        "field 'messages[0].content': found None, expected a value of type str",
    ),
]


def rows_of(root: Path, name: str, split: str) -> list[dict]:
    found = task.load(name)
    return list(task.canonical(found, split, task.read_folder(root, found, name, split)))


def read_split(name: str) -> str:
    """A split that a task reads: that of its test, where it has one."""
    return task.load(name).test or task.load(name).train


def written(root: Path, name: str, lines: list[bytes]) -> Path:
    """The file of a task's split below `root`, made of these lines."""
    path = task.split_files(root, task.load(name), name, read_split(name))[0]
    path.parent.mkdir()
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def encoded(row: dict, **changes) -> bytes:
    changed = {key: value for key, value in {**row, **changes}.items() if value is not MISSING}
    return json.dumps(changed, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", task.names())
def test_contract(name):
    found = task.load(name)
    assert found.kind in task.KINDS
    assert bool(found.labels) == (task.KINDS[found.kind].method == "label")
    assert len(set(found.labels)) == len(found.labels)
    assert (found.hub is None) == name.startswith("mini_")
    assert found.hub or (found.subset is None and found.revision is None and found.folder is None)
    assert found.test != "" and found.train != "" and (found.test or found.train)
    assert (found.test is None) == (task.KINDS[found.kind].method is None)
    assert set(found.files) <= {found.train, found.test}
    assert found.key is None or found.key in found.schema
    assert type(found.version) is int and found.version >= 1
    assert set(found.templates) <= set(prompts.FORMATS)


PROMPTED = [name for name in task.names() if task.load(name).kind != "messages"]


@pytest.mark.parametrize("name", PROMPTED)
def test_all_formats_of_a_task_show_the_same_fields(name):
    found = task.load(name)
    formats = prompts.formats(found)
    assert formats == [format for format in prompts.FORMATS if format != "lm_eval"]
    assert len({frozenset(prompts.field_names(prompts.template(found, format))) for format in formats}) == 1


def test_every_dataset_has_a_row_here():
    assert sorted(ROWS) == [name for name in task.names() if task.load(name).hub]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_read_as_written_here(name):
    row, expected = ROWS[name]
    found = task.load(name)
    [read] = task.canonical(found, "test", [("here", row)])
    assert task.example_of(read) == expected
    assert read["id"] == f"test/{row[found.key]}" if found.key else "test/1"
    for format in prompts.formats(found) if name in PROMPTED else ():
        shown = set(expected.fields) | ({"context"} if found.retrieved else set())
        assert set(prompts.field_names(prompts.template(found, format))) == shown


@pytest.mark.parametrize("name", ROWS)
def test_a_row_survives_parquet(name, tmp_path):
    row, expected = ROWS[name]
    tables.write(task.canonical(task.load(name), "test", [("here", row)]), tables.EXAMPLES, tmp_path / "task.parquet")
    [back] = tables.rows(tmp_path / "task.parquet")
    assert task.example_of(back) == expected


@pytest.mark.parametrize(("score", "answer"), [(0.0, "no"), (3.5, "no"), (3.501, "yes"), (5.0, "yes")])
def test_stsb_counts_scores_above_3_5_as_paraphrases(score, answer):
    row, _ = ROWS["stsb"]
    assert task.load("stsb").read({**row, "label": score}).answer == answer


def test_winogrande_keeps_what_touches_the_blank_with_the_option():
    row = {"sentence": 'Ann said "_\'s late."', "option1": "Bo", "option2": "Cy", "answer": "1"}
    read = task.load("winogrande").read(row)
    assert (read.fields, read.leads, read.answer) == ({"beginning": "Ann said"}, ('"Bo', '"Cy'), "'s late.\"")


@pytest.mark.parametrize(("name", "changes", "message"), MISFITS)
def test_a_row_that_does_not_fit_is_named(name, changes, message, tmp_path):
    row, _ = ROWS[name]
    key = task.load(name).key
    other = {key: 99 if isinstance(row[key], int) else "99"} if key else {}
    path = written(tmp_path, name, [encoded(row), encoded(row, **{**other, **changes})])
    with pytest.raises(StudyError) as caught:
        rows_of(tmp_path, name, read_split(name))
    assert str(caught.value) == f"{path}, row 2: {message}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"question1": "caf\xe9"}', "not a JSON object in UTF-8: 'utf-8' codec can't decode"),
        (b'{"question1": "tea", ', "not a JSON object in UTF-8: Expecting property name"),
        (b"[1, 2]", "found a JSON list, expected an object"),
        (encoded(ROWS["qqp"][0]), "field 'idx': '5' is already used by {path}, row 1; expected a unique value"),
    ],
    ids=["not UTF-8", "broken", "list", "duplicate"],
)
def test_a_line_that_is_no_row_is_named(line, message, tmp_path):
    path = written(tmp_path, "qqp", [encoded(ROWS["qqp"][0]), line])
    with pytest.raises(StudyError) as caught:
        rows_of(tmp_path, "qqp", "validation")
    assert str(caught.value).startswith(f"{path}, row 2: {message.format(path=path)}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [True, 1.0, "1", -1, None, [1]])
def test_one_of_takes_neither_a_stranger_nor_a_look_alike(value):
    assert task.one_of({"label": 1}, "label", range(2)) == 1
    with pytest.raises(task.FieldError, match=r"field 'label': found .*, expected one of 0, 1"):
        task.one_of({"label": value}, "label", range(2))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        StudyError, match=r"validation_mismatched\.jsonl: split 'validation_mismatched' of task 'mnli_mism"
    ):
        rows_of(tmp_path, "mnli_mismatched", "validation_mismatched")


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(StudyError, match="task 'snli' is not known; allowed: arc_challenge, arc_easy, boolq"):
        task.load("snli")


def test_a_task_depends_on_the_modules_it_builds_on():
    assert [path.name for path in task.module_paths("arc_challenge")] == ["arc_challenge.py", "arc_easy.py"]
    assert task.module_paths("boolq") == [task.module_path("boolq")]


def real_file(name: str, split: str) -> Path:
    """The sample's file of a split; skips the test where there is none."""
    path = task.split_files(DATA, task.load(name), name, split)[0]
    if not path.is_file():
        pytest.skip(f"no file {path}: set TUNECAST_DATA to the folder of dataset samples")
    return path


REAL = [(name, split) for name in ROWS for split in task.splits(task.load(name))]


@pytest.mark.parametrize(("name", "split"), REAL)
def test_every_real_row_is_read(name, split):
    path = real_file(name, split)
    found = task.load(name)
    read = rows_of(DATA, name, split)
    assert len(read) == len(path.read_bytes().splitlines())
    assert len({row["id"] for row in read}) == len(read)
    for row in read:
        assert row["gold"] is None or row["choices"][row["gold"]] == row["answer"]
        assert row["answer"].strip() or row["turns"][-1]["content"].strip()
        for format in prompts.formats(found) if name in PROMPTED else ():
            prompt = prompts.prompt(found, row["fields"] | ({"context": "-"} if found.retrieved else {}), format)
            assert all(text.strip() in prompt for text in row["fields"].values())


# Counts of the raw label field in the sample's files, taken without the task modules.
@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("mnli", {"contradiction": 111, "entailment": 90, "neutral": 88}),
        ("mnli_mismatched", {"contradiction": 97, "entailment": 96, "neutral": 88}),
        ("rte", {"entailment": 93, "neutral": 78}),
        ("gpt3_nli", {"entailment": 2023, "neutral": 1995, "contradiction": 1982}),
        ("paws", {"no": 153, "yes": 145}),
        ("qqp", {"no": 658, "yes": 342}),
        ("boolq", {"yes": 628, "no": 372}),
    ],
)
def test_real_answers_are_counted_right(name, answers):
    real_file(name, task.load(name).test)
    assert Counter(row["answer"] for row in rows_of(DATA, name, task.load(name).test)) == answers


RANKED = ["arc_easy", "arc_challenge", "sciq_choice", "boolq", "piqa", "hellaswag", "winogrande"]
HARNESS = Path(lm_eval.__file__).parent / "tasks"


def harness_pair(name: str, row: dict) -> tuple[list[str], list[str]]:
    """Contexts and continuations of a row in lm-evaluation-harness, one of each for every option."""
    if name == "winogrande":
        # Here a prompt never ends in a space, so a slip of two before the blank is read as one.
        row = {**row, "sentence": row["sentence"].replace("  _", " _")}
        return doc_to_choice(row), [" " + doc_to_target(row)] * 2
    if name == "hellaswag":
        context = preprocess(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
        return [context] * 4, [" " + preprocess(ending) for ending in row["endings"]]
    file = {
        "arc_easy": "arc/arc_easy",
        "arc_challenge": "arc/arc_easy",
        "sciq_choice": "sciq/sciq",
        "boolq": "super_glue/boolq/default",
        "piqa": "piqa/piqa",
    }[name]
    [template] = [
        json.loads(line.removeprefix("doc_to_text: "))
        for line in (HARNESS / f"{file}.yaml").read_text().splitlines()
        if line.startswith("doc_to_text: ")
    ]
    if name == "sciq_choice":
        options = sorted(row[f] for f in ("correct_answer", "distractor1", "distractor2", "distractor3"))
    elif name == "boolq":
        options = ["no", "yes"]
    else:
        options = [row["sol1"], row["sol2"]] if name == "piqa" else row["choices"]["text"]
    return [apply_template(template, row)] * len(options), [" " + option for option in options]


@pytest.mark.parametrize("name", RANKED)
def test_real_prompts_and_options_equal_lm_evaluation_harness(name):
    path = real_file(name, "validation")
    found = task.load(name)
    for line, read in zip(
        path.read_text(encoding="utf-8").splitlines(), rows_of(DATA, name, "validation"), strict=True
    ):
        prompt = prompts.prompt(found, read["fields"], "default")
        if read["leads"]:
            contexts, scored = [prompt + prompts.completion(lead) for lead in read["leads"]], read["choices"]
        else:
            contexts, scored = [prompt] * len(read["choices"]), [prompts.completion(text) for text in read["choices"]]
        assert (contexts, scored) == harness_pair(name, json.loads(line))
