"""The generated world: determined by its seed, and each planted truth in place."""

import itertools
import json
import math
from collections import Counter

import pytest

from workflow import task
from workflow.data import miniworld, prompts

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module", params=SEEDS)
def world(request):
    return miniworld.build(request.param)


@pytest.fixture(scope="module")
def rows(world):
    return miniworld.task_rows(world)


@pytest.fixture(scope="module")
def text(world):
    return [page for pages in miniworld.documents(world).values() for page in pages]


def names(world):
    kinds = [*world.animals, *world.things]
    return [kind.name for kind in kinds], [person.name for person in world.people], list(world.towns)


def words(row):
    """The words of an inference row, marked by the field they stand in."""
    return {(field, word) for field in ("premise", "hypothesis") for word in row[field].rstrip(".").split()}


def naive_bayes(train, test, features):
    """Accuracy on `test` of a naive Bayes classifier (Laplace smoothing) on binary features counted in `train`."""
    labels = Counter(row["label"] for row in train)
    counts = {label: Counter() for label in labels}
    for row in train:
        counts[row["label"]].update(features(row))

    def log_probability(label, row):
        evidence = (math.log((counts[label][one] + 1) / (labels[label] + 2)) for one in sorted(features(row)))
        return math.log(labels[label]) + sum(evidence)

    guesses = [max(sorted(labels), key=lambda label: log_probability(label, row)) for row in test]
    return sum(guess == row["label"] for guess, row in zip(guesses, test, strict=True)) / len(test)


def margin(share, count):
    """Half the width of the 99.9 % normal interval of a share."""
    return 3.29 * math.sqrt(share * (1 - share) / count)


def test_same_seed_same_world():
    first, second = miniworld.build(3), miniworld.build(3)
    assert miniworld.documents(first) == miniworld.documents(second)
    assert miniworld.task_rows(first) == miniworld.task_rows(second)


def test_other_seed_other_names():
    kinds, people, towns = zip(*(names(miniworld.build(seed)) for seed in SEEDS[:2]), strict=True)
    for first, second in (kinds, people, towns):
        assert len(set(first) & set(second)) < len(first) / 10


def test_names_are_unique(world):
    everyone = [name.lower() for group in names(world) for name in group]
    assert len(everyone) == len(set(everyone))


def test_no_validation_document_is_trained_on(world, text):
    held = [page for pages in miniworld.documents(world, "validation").values() for page in pages]
    assert held and not set(held) & set(text)


def test_every_row_reads_as_its_task_says(rows):
    for name, splits in rows.items():
        one = task.load(name)
        assert set(splits) == {split for split in (one.train, one.test) if split}
        for split, members in splits.items():
            placed = ((f"{name}/{split}, row {number}", row) for number, row in enumerate(members, start=1))
            assert len(list(task.canonical(one, split, placed))) == len(members)


def test_every_mini_task_has_rows(rows):
    assert set(rows) == {name for name in task.names() if name.startswith("mini_")}


def test_sizes(rows):
    for name, splits in rows.items():
        generated = task.load(name).kind in ("summary", "question")
        # One row for each animal or thing of an inference test, which is what its rows stand for.
        assert len(splits["test"]) >= (100 if generated else 60 if name.startswith("mini_inference") else 160)
        assert len(splits.get("train", [0] * 160)) >= 160


def test_labels_are_balanced(rows):
    for name, splits in rows.items():
        for members in splits.values():
            if "label" in members[0]:
                assert set(Counter(row["label"] for row in members).values()) == {
                    len(members) // len(task.load(name).labels)
                }


def test_no_row_is_both_trained_on_and_tested(rows):
    for splits in rows.values():
        seen = {json.dumps({**row, "id": ""}) for row in splits.get("train", [])}
        assert not seen & {json.dumps({**row, "id": ""}) for row in splits["test"]}


def test_label_words_and_prompt_words_are_in_the_text(text):
    told = " ".join(text)
    for word in (*miniworld.LABELS, *miniworld.VERDICTS, "Input", "Inference", "Summary", "###"):
        assert word in told


def test_choice_form_is_in_the_text_but_no_tested_question(rows, text):
    pages = "\n\n".join(text)
    fields = prompts.FORMATS["default"]["choice"]
    asked = [
        fields.format(question=row["question"]) + row["choices"][row["answer"]] for row in rows["mini_facts"]["train"]
    ]
    assert all(question in pages for question in asked)
    for name in ("mini_facts", "mini_facts_ood"):
        assert not [row for row in rows[name]["test"] if f"Question: {row['question']}" in pages]


def test_facts_behind_tested_rows_are_in_the_text(world, text):
    told = set(sentence for page in text for sentence in page.replace(". ", ".\n").split("\n"))
    for sort in (miniworld.ANIMAL, miniworld.THING):
        for (nature, often), third in itertools.product(miniworld.NATURES.items(), sort.habits.values()):
            assert f"A {nature} {sort.noun} {often} {third}." in told
    for kind in (*world.animals, *world.things):
        assert f"The {kind.name} is {kind.nature}." in told
        for trait in kind.sort.traits:
            assert {telling.format(name=kind.name, value=kind.traits[trait.name]) for telling in trait.tellings} & told


@pytest.mark.parametrize("kind", ["inference", "paraphrase", "summary", "question"])
@pytest.mark.parametrize("form", [form for form, templates in prompts.FORMATS.items() if templates])
def test_other_forms_are_not_in_the_text(text, form, kind):
    pieces = [piece for piece in prompts.FORMATS[form][kind].replace("\n", "{").replace("}", "{").split("{")]
    literal = [
        piece for piece in pieces if piece.strip() and piece not in prompts.field_names(prompts.FORMATS[form][kind])
    ]
    told = "\n\n".join(text)
    assert not [piece for piece in literal if piece in told]


def test_inference_animals_of_train_and_test_are_disjoint(world, rows):
    kinds = {kind.name for kind in (*world.animals, *world.things)}
    met = {
        split: {word for row in rows["mini_inference"][split] for word in row["premise"].rstrip(".").split()} & kinds
        for split in ("train", "test")
    }
    others = {row["premise"].rstrip(".").split()[-1] for row in rows["mini_inference_ood"]["test"]}
    assert met["train"] and met["test"] and others
    assert not met["train"] & met["test"] and not met["train"] & others


def decided(world, row):
    """The label that the facts give to an inference row, found again from its text."""
    kinds = {kind.name: kind for kind in (*world.animals, *world.things)}
    name, third = (row[field].rstrip(".").split()[-1] for field in ("premise", "hypothesis"))
    assert third in kinds[name].sort.habits.values()
    meaning = {"strong": 0, "plain": 1, "weak": 2}
    return ("entailment", "neutral", "contradiction")[meaning[kinds[name].nature]]


def test_inference_label_follows_from_the_facts(world, rows):
    for name in ("mini_inference", "mini_inference_ood"):
        assert [row["label"] for row in rows[name]["test"]] == [decided(world, row) for row in rows[name]["test"]]


@pytest.mark.parametrize("name", ["mini_inference", "mini_control"])
def test_no_word_gives_the_label_away(rows, name):
    train, test = rows[name]["train"], rows[name]["test"]
    for features in (words, lambda row: {(row["premise"].split()[1], row["hypothesis"])}):
        assert abs(naive_bayes(train, test, features) - 1 / 3) < margin(1 / 3, len(test))


def test_every_verb_stands_equally_often_under_each_label(rows):
    for split in rows["mini_inference"].values():
        counts = Counter((row["hypothesis"], row["label"]) for row in split)
        assert len(counts) == 4 * 3
        for verb, _ in counts:
            assert len({counts[verb, label] for label in miniworld.LABELS}) == 1


def test_each_animal_is_tested_once(rows):
    tested = [row["premise"].rstrip(".").split()[-1] for row in rows["mini_inference"]["test"]]
    assert len(tested) == len(set(tested)) == 60


def test_control_labels_do_not_follow_the_facts(world, rows):
    """Under each true label the given ones stand equally often, but for one row where they cannot."""
    for members in (*rows["mini_control"].values(), rows["mini_control_ood"]["test"]):
        counts = Counter((decided(world, row), row["label"]) for row in members)
        assert len(counts) == 9 and max(counts.values()) - min(counts.values()) <= 1


def test_shortcut_holds_in_training_and_is_reversed_out_of_domain(rows):
    def early(row):
        return row["sentence2"].rstrip(".").split()[-1] in ("morning", "noon", "Monday")

    def share(members):
        return sum(early(row) == (row["label"] == "yes") for row in members) / len(members)

    assert share(rows["mini_paraphrase"]["train"]) == share(rows["mini_paraphrase"]["test"]) == 1
    assert share(rows["mini_paraphrase_ood"]["test"]) == 0


def test_paraphrase_label_is_true_in_both_domains(rows):
    for row in [row for name in ("mini_paraphrase", "mini_paraphrase_ood") for row in rows[name]["test"]]:
        giver, _, taker = row["sentence1"].rstrip(".").split()[:3]
        said = row["sentence2"].split()
        first, last = said[0], said[5]
        same = (first, last) == ((giver, taker) if "gave" in said else (taker, giver))
        assert {first, last} == {giver, taker}
        assert row["label"] == ("yes" if same else "no")


def test_written_files_read_back(tmp_path):
    world = miniworld.build(0, people=10, towns=8, animals=24, things=24, rounds=1)
    miniworld.write(world, tmp_path)
    pages = [json.loads(line) for line in (tmp_path / "text/stories/train.jsonl").read_text().splitlines()]
    assert [page["text"] for page in pages] == miniworld.documents(world)["stories"]
    assert set(pages[0]) == {"text", "id", "source"}
    read = list(task.read_folder(tmp_path, task.load("mini_inference"), "mini_inference", "test"))
    assert [row for _, row in read] == miniworld.task_rows(world)["mini_inference"]["test"]
