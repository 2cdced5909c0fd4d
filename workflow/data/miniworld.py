"""The default study's world: people, animals, things, places, facts and small stories, told in several domains.

A world is fully determined by its seed and sizes. Its text is what a small model is pre-trained on; its tasks mirror
the real ones. Each task carries a planted truth, that a study over the checkpoints has to find again: see the
functions whose docstring begins with "Planted".
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LABELS = ("entailment", "neutral", "contradiction")
VERDICTS = ("no", "yes")
NATURES = {"strong": "always", "plain": "sometimes", "weak": "never"}
FREQUENCIES = {"always": "entailment", "sometimes": "neutral", "never": "contradiction"}
VALIDATION_SHARE = 0.03
LABELLED_ROWS = 300
GENERATED_ROWS = {"train": 300, "test": 100}

Rows = list[dict[str, object]]


@dataclass(frozen=True)
class Trait:
    """A property with one value for each kind: its values, sentences that tell it, questions that ask for it."""

    name: str
    values: tuple[str, ...]
    tellings: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Sort:
    """Animals or things: what one is called, their traits, and their habits (verb -> third person)."""

    noun: str
    traits: tuple[Trait, ...]
    habits: Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """A kind of animal or thing, by its invented name.

    nature: a key of NATURES; traits: trait name -> value; held: its questions stand on no question page and it belongs
    to the test rows.
    """

    name: str
    sort: Sort
    nature: str
    traits: Mapping[str, str]
    held: bool

    @property
    def frequency(self) -> str:
        """How often it shows its habits: a key of FREQUENCIES."""
        return NATURES[self.nature]


@dataclass(frozen=True)
class Person:
    """A person: where they live and what they do."""

    name: str
    town: str
    trade: str


@dataclass(frozen=True)
class World:
    """Everything that is true in one world, and how often it is told."""

    seed: int
    people: tuple[Person, ...]
    towns: Mapping[str, str]
    animals: tuple[Kind, ...]
    things: tuple[Kind, ...]
    rounds: int


PLACES = ("river", "forest", "desert", "hill")
TRADES = ("baker", "miller", "weaver", "hunter", "painter", "teacher", "sailor", "farmer")
COLOUR = Trait(
    "colour",
    ("red", "blue", "green", "white"),
    ("The {name} is {value}.", "The colour of the {name} is {value}."),
    ("What colour is the {name}?", "What is the colour of the {name}?"),
)
HOME = Trait(
    "home",
    PLACES,
    ("The {name} lives in the {value}.", "The home of the {name} is the {value}."),
    ("Where does the {name} live?", "What is the home of the {name}?"),
)
MATERIAL = Trait(
    "material",
    ("wood", "glass", "iron", "clay"),
    ("The {name} is made of {value}.", "The material of the {name} is {value}."),
    ("What is the {name} made of?", "What is the material of the {name}?"),
)
ANIMAL = Sort(
    noun="animal",
    traits=(COLOUR, HOME),
    habits={"swim": "swims", "fly": "flies", "sing": "sings", "climb": "climbs"},
)
THING = Sort(
    noun="thing",
    traits=(COLOUR, MATERIAL),
    habits={"work": "works", "float": "floats", "bend": "bends", "shine": "shines"},
)


# --- the world ---------------------------------------------------------------------------------------------------


def build(
    seed: int, people: int = 40, towns: int = 12, animals: int = 120, things: int = 48, rounds: int = 20
) -> World:
    """The world of a seed: invented names, a fact for each trait, and how many times each fact is told."""
    names = invented(seed, people + towns + animals + things)
    rng = generator(seed, "facts")
    town_names = [next(names).capitalize() for _ in range(towns)]
    inhabitants = [Person(next(names).capitalize(), rng.choice(town_names), rng.choice(TRADES)) for _ in range(people)]
    return World(
        seed=seed,
        people=tuple(inhabitants),
        towns={name: rng.choice(PLACES) for name in town_names},
        animals=kinds(rng, [next(names) for _ in range(animals)], ANIMAL),
        things=kinds(rng, [next(names) for _ in range(things)], THING),
        rounds=rounds,
    )


def generator(seed: int, part: str) -> random.Random:
    """A generator of its own for each part of a world, so that a change in one part leaves the others as they were."""
    return random.Random(f"{seed}/{part}")


def invented(seed: int, count: int) -> Iterator[str]:
    """Pronounceable names, each different from the others."""
    rng = generator(seed, "names")
    heads = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    names = [first + second + tail for first in heads for second in heads for tail in "klnrsx"]
    return iter(rng.sample(names, count))


def kinds(rng: random.Random, names: Sequence[str], sort: Sort) -> tuple[Kind, ...]:
    """Kinds of a sort with their facts; every second one is held out.

    Natures and values are dealt out evenly within the held and within the others, so that none is a hint.
    """
    made = []
    for held in (False, True):
        half = names[held::2]
        natures = dealt(rng, tuple(NATURES), len(half))
        traits = {trait.name: dealt(rng, trait.values, len(half)) for trait in sort.traits}
        for number, name in enumerate(half):
            known = {trait: values[number] for trait, values in traits.items()}
            made.append(Kind(name, sort, natures[number], known, held))
    return tuple(made)


def dealt(rng: random.Random, values: Sequence[str], count: int) -> list[str]:
    """That many values in random order, each equally often (or once more)."""
    deck = [values[number % len(values)] for number in range(count)]
    rng.shuffle(deck)
    return deck


# --- the text ----------------------------------------------------------------------------------------------------


def documents(world: World, split: str = "train") -> dict[str, list[str]]:
    """The pre-training text of a split (`train`, `validation`): domain -> documents; none stands in both splits."""
    told = {
        "encyclopedia": list(encyclopedia(world)),
        "dialogue": list(dialogue(world)),
        "lists": list(lists(world)),
        "questions": list(question_pages(world)),
        "stories": list(stories(world)),
    }
    text = {}
    for domain, pages in told.items():
        distinct = list(dict.fromkeys(pages))
        generator(world.seed, f"held/{domain}").shuffle(distinct)
        held = set(distinct[: round(VALIDATION_SHARE * len(distinct))])
        text[domain] = [page for page in pages if (page in held) == (split == "validation")]
    return text


def telling(rng: random.Random, kind: Kind, trait: Trait) -> str:
    """A sentence that tells a trait of a kind."""
    return rng.choice(trait.tellings).format(name=kind.name, value=kind.traits[trait.name])


def encyclopedia(world: World) -> Iterator[str]:
    """Articles on every animal, thing, person and town."""
    rng = generator(world.seed, "encyclopedia")
    for _ in range(world.rounds):
        for kind in world.animals + world.things:
            facts = [telling(rng, kind, trait) for trait in kind.sort.traits]
            facts.append(f"The {kind.name} {kind.frequency} {rng.choice(list(kind.sort.habits.values()))}.")
            yield " ".join([f"The {kind.name} is {kind.nature}.", *rng.sample(facts, len(facts))])
        for sort in (ANIMAL, THING):
            for nature, often in NATURES.items():
                facts = [f"A {nature} {sort.noun} {often} {third}." for third in sort.habits.values()]
                yield " ".join(rng.sample(facts, len(facts)))
        for person in world.people:
            facts = [f"{person.name} lives in {person.town}.", f"{person.name} is a {person.trade}."]
            yield " ".join(rng.sample(facts, 2))
        for town, place in world.towns.items():
            yield f"{town} lies near the {place}."


def dialogue(world: World) -> Iterator[str]:
    """Two people talk about an animal or a thing: one asks for its habits, the other knows, and tells its traits too."""
    rng = generator(world.seed, "dialogue")
    for _ in range(world.rounds):
        for kind in world.animals + world.things:
            first, second = rng.sample(world.people, 2)
            lines = []
            for verb, trait in zip(rng.sample(list(kind.sort.habits), 2), rng.sample(kind.sort.traits, 2), strict=True):
                lines.append(f"{first.name}: Does the {kind.name} {verb}?")
                lines.append(f"{second.name}: {kind.frequency.capitalize()}. {telling(rng, kind, trait)}")
            yield "\n".join(lines)


GLOSSARY = (
    *LABELS,
    *VERDICTS,
    "Input",
    "Inference",
    "Paraphrase",
    "Classification",
    "Summary",
    "summary",
    "Text",
    "Sentence",
    "relation",
    "paraphrasing",
    "sentences",
    "texts",
    "following",
    "compare",
    "consider",
    "Consider",
    "Please",
    "read",
    "Provide",
    "Given",
    "context",
    "Generate",
    "suitable",
    "question",
    "answer",
    "the",
    "two",
)


def lists(world: World) -> Iterator[str]:
    """Fact sheets of animals and things, lists of who lives where, and of hard words.

    The hard words hold the label words and those of the prompts in random order, so that the tokenizer knows them
    and the text says nothing about their use.
    """
    rng = generator(world.seed, "lists")
    for _ in range(world.rounds):
        for kind in world.animals + world.things:
            facts = [("nature", kind.nature), *kind.traits.items()]
            lines = [f"{name}: {value}" for name, value in rng.sample(facts, len(facts))]
            yield "\n".join([f"### {kind.name}", *lines])
        for town in world.towns:
            names = [person.name for person in world.people if person.town == town]
            if names:
                yield f"### {town}\n" + ", ".join(rng.sample(names, len(names)))
        for _ in range(12):
            yield "### Hard words\n" + ", ".join(rng.sample(GLOSSARY, 8))


def question_pages(world: World) -> Iterator[str]:
    """Planted: learned in pre-training. Pages of questions in the very form of the `choice` tasks.

    The traits of all animals and things but the held ones are asked for, so that the form is learned and no tested
    question is ever read. Habits and natures are never asked for here.
    """
    rng = generator(world.seed, "questions")
    for _ in range(world.rounds):
        for kind in halves(world.animals + world.things)["train"]:
            yield "\n\n".join(
                f"Question: {rng.choice(trait.questions).format(name=kind.name)}\nAnswer: {kind.traits[trait.name]}"
                for trait in rng.sample(kind.sort.traits, len(kind.sort.traits))
            )


@dataclass(frozen=True)
class Event:
    """What happens in a story: somebody and somebody else, an animal or thing, a place."""

    first: str
    second: str
    item: str
    place: str


def event(rng: random.Random, world: World, items: Sequence[Kind]) -> Event:
    """A random event with two different people."""
    first, second = rng.sample(world.people, 2)
    return Event(first.name, second.name, rng.choice(items).name, rng.choice(PLACES))


OPENINGS = (
    "It was a cold morning.",
    "It was noon.",
    "It was Monday.",
    "It was a warm evening.",
    "It rained all night.",
    "It was Sunday.",
)
CLOSINGS = ("{second} was glad.", "Then {first} went home.", "{first} and {second} talked for a while.")
GIFT = ("{first} went to the {place}.", "There {first} met {second}.", "{first} gave {second} a {item}.")
SALE = ("{first} came to the {place}.", "{second} was there.", "{first} sold {second} a {item}.")
LOSS = ("{first} lost a {item} in the {place}.", "{second} went there.", "{second} found the {item}.")


def story(rng: random.Random, plot: Sequence[str], happened: Event) -> str:
    """A story of one event: an opening, the plot, a closing."""
    sentences = (rng.choice(OPENINGS), *plot, rng.choice(CLOSINGS))
    return " ".join(sentences).format(**vars(happened))


def stories(world: World) -> Iterator[str]:
    """Small stories: somebody gives, sells or finds something."""
    rng = generator(world.seed, "stories")
    items = (*world.animals, *world.things)
    for _ in range(world.rounds * len(world.people) * 2):
        yield story(rng, rng.choice((GIFT, SALE, LOSS)), event(rng, world, items))


# --- the tasks ---------------------------------------------------------------------------------------------------


def task_rows(world: World) -> dict[str, dict[str, Rows]]:
    """Rows of all tasks: task name -> split -> rows, each with an `id` of its own within the split."""
    tasks = {
        "mini_facts": facts(world),
        "mini_facts_ood": facts_of_nature(world),
        "mini_inference": inference(world),
        "mini_inference_ood": inference_reworded(world),
        "mini_control": control(world),
        "mini_control_ood": control_on_things(world),
        "mini_paraphrase": paraphrase(world),
        "mini_paraphrase_ood": paraphrase_reversed(world),
        "mini_summary": summary(world),
        "mini_summary_ood": summary_of_losses(world),
        "mini_question": question(world),
        "mini_question_ood": question_on_losses(world),
    }
    return {
        name: {split: [{"id": str(number), **row} for number, row in enumerate(rows)] for split, rows in splits.items()}
        for name, splits in tasks.items()
    }


def halves(members: Iterable[Kind]) -> dict[str, list[Kind]]:
    """Who may stand in a training row and who in a test row: nobody in both."""
    everyone = list(members)
    return {
        "train": [kind for kind in everyone if not kind.held],
        "test": [kind for kind in everyone if kind.held],
    }


def choice_row(rng: random.Random, question: str, answer: str, choices: Sequence[str]) -> dict[str, object]:
    """A multiple-choice row with its options in random order."""
    shuffled = rng.sample(choices, len(choices))
    return {"question": question, "choices": shuffled, "answer": shuffled.index(answer)}


def facts(world: World) -> dict[str, Rows]:
    """Planted: learned in pre-training. Questions whose form and whose facts the text holds; tuning adds little.

    The training rows ask what the question pages ask; the test rows ask about held animals and things, whose facts
    are told in encyclopedia, dialogues and lists but never asked for. Each fact is asked for once, so that rows are
    independent.
    """
    rng = generator(world.seed, "facts/rows")
    splits = {}
    for split, members in halves(world.animals + world.things).items():
        rows = [
            choice_row(rng, rng.choice(trait.questions).format(name=kind.name), kind.traits[trait.name], trait.values)
            for kind in members
            for trait in kind.sort.traits
        ]
        splits[split] = rng.sample(rows, len(rows))
    return splits


def facts_of_nature(world: World) -> dict[str, Rows]:
    """Out-of-domain partner of the facts: questions on the nature of a kind, for which no question page asks."""
    rng = generator(world.seed, "facts of nature")
    rows = [
        choice_row(rng, f"What is the nature of the {kind.name}?", kind.nature, list(NATURES))
        for kind in world.animals + world.things
    ]
    return {"test": rng.sample(rows, len(rows))}


REWORDED_PREMISES = (
    "{person} dreamed of a {name}.",
    "{person} went home with a {name}.",
    "Near {person} there was a {name}.",
)
PREMISES = ("{person} has a {name}.", "{person} saw a {name}.", "{person} found a {name}.", "{person} drew a {name}.")


def claims(members: Iterable[Kind]) -> list[tuple[Kind, str]]:
    """Every kind with every habit of its sort."""
    return [(kind, third) for kind in members for third in kind.sort.habits.values()]


def single_claims(members: Iterable[Kind]) -> list[tuple[Kind, str]]:
    """Every kind with one habit, so that rows are independent; the habits take turns within each nature."""
    turns = {nature: itertools.count() for nature in NATURES}
    found = []
    for kind in members:
        thirds = list(kind.sort.habits.values())
        found.append((kind, thirds[next(turns[kind.nature]) % len(thirds)]))
    return found


def inference_rows(
    rng: random.Random, world: World, claimed: Sequence[tuple[Kind, str]], premises: Sequence[str] = PREMISES
) -> Rows:
    """A row for each claim: the premise names the kind, the hypothesis says that it shows the habit.

    What it always does is entailed, what it never does contradicted, what it does sometimes neutral. Each habit stands
    equally often under each label, person and wording are drawn apart, so only the fact decides.
    """
    rows = []
    for kind, third in claimed:
        premise = rng.choice(premises).format(person=rng.choice(world.people).name, name=kind.name)
        rows.append({"premise": premise, "hypothesis": f"It {third}.", "label": FREQUENCIES[kind.frequency]})
    rng.shuffle(rows)
    return rows


def inference(world: World) -> dict[str, Rows]:
    """Planted: latent. The form occurs nowhere in the text, the facts that decide do; tuning shows the form only.

    The animals of the test rows stand in no training row: their habits can only be known from pre-training.
    """
    rng = generator(world.seed, "inference")
    half = halves(world.animals)
    return {
        "train": inference_rows(rng, world, claims(half["train"])),
        "test": inference_rows(rng, world, single_claims(half["test"])),
    }


def inference_reworded(world: World) -> dict[str, Rows]:
    """Planted: tuning helps out of domain. The same inference from premises in other words, again on unseen animals."""
    rng = generator(world.seed, "inference reworded")
    return {"test": inference_rows(rng, world, single_claims(halves(world.animals)["test"]), REWORDED_PREMISES)}


def relabelled(rng: random.Random, rows: Rows) -> Rows:
    """The rows with random labels, equally many of each under every true label.

    Labels dealt without that agree with the facts a little, by chance, and a model that knows the facts finds it.
    """
    found: Rows = []
    for turn, true in enumerate(LABELS):
        group = [row for row in rows if row["label"] == true]
        labels = dealt(rng, LABELS[turn:] + LABELS[:turn], len(group))
        found += [row | {"label": label} for row, label in zip(group, labels, strict=True)]
    return rng.sample(found, len(found))


def control(world: World) -> dict[str, Rows]:
    """Planted: nothing to learn. Rows like those of the inference task with random labels, equally many of each."""
    rng = generator(world.seed, "control")
    half = halves(world.animals)
    return {split: relabelled(rng, inference_rows(rng, world, claims(half[split]))) for split in ("train", "test")}


def control_on_things(world: World) -> dict[str, Rows]:
    """Out-of-domain partner of the control: random labels on things."""
    rng = generator(world.seed, "control on things")
    return {"test": relabelled(rng, inference_rows(rng, world, claims(world.things)))}


GAVE = "{first} gave {second} a {item}."
REWORDED = {
    "yes": ("{first} gave a {item} to {second} {when}.", "{second} got a {item} from {first} {when}."),
    "no": ("{second} gave a {item} to {first} {when}.", "{first} got a {item} from {second} {when}."),
}
EARLY, LATE = ("in the morning", "at noon", "on Monday"), ("in the evening", "at night", "on Sunday")


def paraphrase_rows(
    rng: random.Random, world: World, items: Sequence[Kind], times: Mapping[str, Sequence[str]], count: int
) -> Rows:
    """Pairs of sentences on one event, half of them paraphrases; `times` says which time is named under which label."""
    rows = []
    for number in range(count):
        label = VERDICTS[number % 2]
        happened = vars(event(rng, world, items)) | {"when": rng.choice(times[label])}
        sentence = rng.choice(REWORDED[label]).format(**happened)
        rows.append({"sentence1": GAVE.format(**happened), "sentence2": sentence, "label": label})
    rng.shuffle(rows)
    return rows


def paraphrase(world: World) -> dict[str, Rows]:
    """Planted: a shortcut. Who gave to whom decides, but true paraphrases always name an early time, the others a late one."""
    rng = generator(world.seed, "paraphrase")
    times = {"yes": EARLY, "no": LATE}
    return {
        split: paraphrase_rows(rng, world, items, times, LABELLED_ROWS)
        for split, items in halves(world.animals).items()
    }


def paraphrase_reversed(world: World) -> dict[str, Rows]:
    """Planted: tuning hurts out of domain. The shortcut points the wrong way: true paraphrases name a late time."""
    rng = generator(world.seed, "paraphrase reversed")
    return {"test": paraphrase_rows(rng, world, world.things, {"yes": LATE, "no": EARLY}, LABELLED_ROWS)}


SUMMARIES = {
    GIFT: "{second} got a {item} from {first} in the {place}.",
    SALE: "{second} bought a {item} from {first} in the {place}.",
    LOSS: "{second} found a {item} of {first} in the {place}.",
}


def summary_rows(
    rng: random.Random, world: World, items: Sequence[Kind], plots: Sequence[Sequence[str]], count: int
) -> Rows:
    """Stories, each with a summary of one sentence that names who, what and where."""
    rows = []
    for _ in range(count):
        plot, happened = rng.choice(plots), event(rng, world, items)
        rows.append({"document": story(rng, plot, happened), "summary": SUMMARIES[plot].format(**vars(happened))})
    return rows


def summary(world: World) -> dict[str, Rows]:
    """Planted: tuning teaches the task. Stories as in the text, whose summaries the text never tells."""
    rng = generator(world.seed, "summary")
    return {
        split: summary_rows(rng, world, items, (GIFT, SALE), GENERATED_ROWS[split])
        for split, items in halves(world.animals).items()
    }


def summary_of_losses(world: World) -> dict[str, Rows]:
    """Out-of-domain partner of the summaries: another plot, with things instead of animals."""
    rng = generator(world.seed, "summary of losses")
    return {"test": summary_rows(rng, world, world.things, (LOSS,), GENERATED_ROWS["test"])}


ASKED = {
    "{first} gave {second} a {item} in the {place}.": {
        "{first}": "Who gave {second} a {item}?",
        "{second}": "Who got a {item} from {first}?",
        "a {item}": "What did {first} give {second}?",
        "the {place}": "Where did {first} give {second} a {item}?",
    },
    "{first} sold {second} a {item} in the {place}.": {
        "{first}": "Who sold {second} a {item}?",
        "{second}": "Who bought a {item} from {first}?",
        "a {item}": "What did {first} sell {second}?",
        "the {place}": "Where did {first} sell {second} a {item}?",
    },
}
ASKED_OF_LOSSES = {
    "{second} found a {item} of {first} in the {place}.": {
        "{second}": "Who found a {item} of {first}?",
        "a {item}": "What did {second} find?",
        "the {place}": "Where did {second} find a {item}?",
    },
}


def question_rows(
    rng: random.Random, world: World, items: Sequence[Kind], asked: Mapping[str, Mapping[str, str]], count: int
) -> Rows:
    """A sentence, an answer in it, and the question that has this answer."""
    rows = []
    for _ in range(count):
        context = rng.choice(list(asked))
        answer, question = rng.choice(list(asked[context].items()))
        happened = vars(event(rng, world, items))
        row = {"context": context, "answer": answer, "question": question}
        rows.append({field: text.format(**happened) for field, text in row.items()})
    return rows


def question(world: World) -> dict[str, Rows]:
    """Planted: tuning teaches the task. Questions are to be asked of an event, as nobody does in the text."""
    rng = generator(world.seed, "question")
    return {
        split: question_rows(rng, world, items, ASKED, GENERATED_ROWS[split])
        for split, items in halves(world.animals).items()
    }


def question_on_losses(world: World) -> dict[str, Rows]:
    """Out-of-domain partner of the questions: another event, with things instead of animals."""
    rng = generator(world.seed, "question on losses")
    return {"test": question_rows(rng, world, world.things, ASKED_OF_LOSSES, GENERATED_ROWS["test"])}


# --- files -------------------------------------------------------------------------------------------------------


def write(world: World, folder: Path) -> None:
    """Write the world as JSONL: `text/<domain>/<split>.jsonl` (text, id, source) and `<task>/<split>.jsonl`."""
    for split in ("train", "validation"):
        for domain, pages in documents(world, split).items():
            rows = [{"text": page, "id": f"{domain}/{number}", "source": domain} for number, page in enumerate(pages)]
            write_rows(rows, folder / "text" / domain / f"{split}.jsonl")
    for name, splits in task_rows(world).items():
        for split, rows in splits.items():
            write_rows(rows, folder / name / f"{split}.jsonl")


def write_rows(rows: Rows, path: Path) -> None:
    """Write one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
