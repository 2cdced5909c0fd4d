"""Metrics by hand, against scikit-learn and definitions, and on resampled rows against the rows themselves."""

import itertools
import re
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, f1_score

from workflow import task
from workflow.errors import StudyError
from workflow.evaluation import metrics
from workflow.statistics import Resampling
from workflow.storage import tables
from workflow.study import config as configs

NLI = ("entailment", "neutral", "contradiction")
LABEL = ["accuracy", "chance", "macro_f1", "majority", "most_predicted"]
ROUGE = ["rouge_1", "rouge_2", "rouge_l"]
SOUND = {"protocol": "sound", "labels": "score"}
HOW = Resampling(resamples=400, level=0.9, seed=1)


def frame(rows, protocol="sound"):
    """Predictions as they are read back from Parquet, other columns left out; lists are arrays there."""
    table = pd.DataFrame(rows)
    for column in ("logprobs", "priors", "choices", "candidate_tokens"):
        if column in table:
            table[column] = [np.array(value) for value in table[column]]
    return table.assign(protocol=protocol)


def compared(rng, rows=60, labels=NLI):
    """Rows whose label has the highest of random log-probabilities, more often right than not; the last is never gold."""
    golds = rng.integers(len(labels) - 1, size=rows)
    return frame(
        {"logprobs": list(rng.normal(size=len(labels)) + 1.5 * (np.arange(len(labels)) == gold)), "choices": labels,
         "priors": list(np.log([0.7, 0.2, 0.1])[: len(labels)]), "gold": int(gold),
         "candidate_tokens": list(rng.integers(1, 5, size=len(labels))), "output": "", "id": f"test/{number}"}
        for number, gold in enumerate(golds)
    )  # fmt: skip


def written(rng, rows=60):
    """Rows of generated text, some of which names no label."""
    texts = ["neutral", "entailment.", "Neutral, I think", "what?", "", "contradiction neutral"]
    return frame(
        {"logprobs": [], "choices": NLI, "gold": int(rng.integers(3)), "output": str(rng.choice(texts)), "id": str(number)}
        for number in range(rows)
    )  # fmt: skip


def constrained(rng, rows=60):
    """Rows of forced text beside the free one, which names a label half the time."""
    return frame(
        ({"logprobs": [], "choices": NLI, "gold": int(rng.integers(3)), "output": f"a {rng.choice(NLI)}",
          "free_output": str(rng.choice(["neutral.", "entail", "", "contradictions"])), "id": str(number)}
         for number in range(rows)),
        protocol="published",
    )  # fmt: skip


def texts(rng, rows=20):
    """Rows of free text."""
    words = ["the", "cat", "owl", "sings", "sleeps", "Owl!"]
    return frame(
        {"logprobs": [], "choices": [], "gold": None, "output": " ".join(rng.choice(words, 5)),
         "reference": " ".join(rng.choice(words, 6)), "id": str(number)}
        for number in range(rows)
    )  # fmt: skip


def one(name, rows):
    """A metric over rows as they are."""
    return float(metrics.METRICS[name].estimates(rows, np.ones((1, len(rows))))[0])


# Against scikit-learn and rouge-score


@pytest.mark.parametrize("make", [compared, written])
@pytest.mark.parametrize("seed", range(5))
def test_accuracy_and_macro_f1_equal_scikit_learn(make, seed):
    rows = make(np.random.default_rng(seed))
    truth, guess = rows["gold"].tolist(), metrics.predicted(rows).tolist()
    assert one("accuracy", rows) == pytest.approx(accuracy_score(truth, guess), abs=1e-12)
    named = sorted({*truth, *guess} - {-1})
    expected = f1_score(truth, guess, average="macro", labels=named, zero_division=0)
    assert one("macro_f1", rows) == pytest.approx(expected, abs=1e-12)
    shares = np.bincount(truth) / len(truth)
    assert one("majority", rows) == pytest.approx(max(shares), abs=1e-12)


def test_macro_f1_by_hand():
    """Gold 0 0 0 1, predicted 0 0 1 2: F1 is 4/5, 0 and 0 for the three classes; without the last row 4/5 and 0."""
    best = {0: [0.0, -1, -1], 1: [-1, 0.0, -1], 2: [-1, -1, 0.0]}
    pairs = [(0, 0), (0, 0), (0, 1), (1, 2)]
    rows = frame({"logprobs": best[guess], "choices": NLI, "gold": gold} for gold, guess in pairs)
    assert one("macro_f1", rows) == pytest.approx(0.8 / 3)
    assert one("macro_f1", rows[:3]) == pytest.approx(0.8 / 2)
    assert (one("accuracy", rows), one("majority", rows), one("chance", rows)) == pytest.approx((0.5, 0.75, 1 / 3))


def plain_rouge(reference: str, output: str, kind: str) -> float:
    """ROUGE by its definition: words, pairs of words, or the table of longest common subsequences."""
    one, other = (re.findall("[a-z0-9]+", text.lower()) for text in (reference, output))
    if kind == "rouge_l":
        longest = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
        for i, j in itertools.product(range(len(one)), range(len(other))):
            both = longest[i][j] + 1 if one[i] == other[j] else max(longest[i][j + 1], longest[i + 1][j])
            longest[i + 1][j + 1] = both
        common, sizes = longest[-1][-1], (len(one), len(other))
    else:
        length = int(kind[-1])
        first, second = (Counter(zip(*(words[k:] for k in range(length)), strict=False)) for words in (one, other))
        common, sizes = (first & second).total(), (first.total(), second.total())
    return 2 * common / sum(sizes) if common else 0.0


@pytest.mark.parametrize("kind", ROUGE)
def test_rouge_is_that_of_its_definition(kind):
    rows = texts(np.random.default_rng(0))
    # Other texts than words of a few: cases, digits, apostrophes, letters that are not ASCII, repeats, nothing at all.
    pieces = ["The", "cat's", "CAT", "3.14", "naïve", "日本", "a", "a", "İstanbul", "-", "\n", "re-read", ""]
    draw = np.random.default_rng(1)
    pairs = [[" ".join(draw.choice(pieces, size=draw.integers(0, 90))) for _ in range(2)] for _ in range(200)]
    pairs += list(zip(rows["reference"], rows["output"], strict=True))
    expected = [plain_rouge(*pair, kind) for pair in pairs]
    assert metrics.METRICS[kind].values(
        frame({"reference": one, "output": other} for one, other in pairs)
    ).tolist() == (pytest.approx(expected, abs=1e-12))
    assert min(expected) == 0 and max(expected) > 0.5


def test_rouge_by_hand():
    outputs = ["The cat", "the cats", ""]
    rows = frame({"output": output, "reference": "the black cat"} for output in outputs)
    by_hand = {
        "rouge_1": [0.8, 0.4, 0.0],  # "the", "cat": precision 2/2, recall 2/3; without a stemmer "cats" is not "cat"
        "rouge_2": [0.0, 0.0, 0.0],  # no two words stand side by side in both
        "rouge_l": [0.8, 0.4, 0.0],
    }
    for kind, expected in by_hand.items():
        assert metrics.METRICS[kind].values(rows).tolist() == pytest.approx(expected), kind
    stemmed = metrics.METRICS["rouge_l"].values(rows.assign(stemmer=True)).tolist()
    assert stemmed == pytest.approx([0.8, 0.8, 0.0])  # "cats" has the stem "cat"


# Predictions that do not read


def test_a_constant_preference_goes_with_its_prior():
    """Rows say e^2 : 1 for their gold label; a model that finds `no` e^3 times likelier whatever it reads always says `no`."""
    rows = []
    for label in (0, 1, 1, 0, 1):
        read = [2.0 * (label == 0), 2.0 * (label == 1)]
        prior = [3 - np.log(np.exp(3) + 1), -np.log(np.exp(3) + 1)]
        rows.append(
            {"logprobs": [read[0] + 3 - 7, read[1] - 7], "priors": prior, "choices": ("no", "yes"), "gold": label}
        )
    rows = frame(rows)
    assert (one("accuracy", rows), one("accuracy_calibrated", rows)) == (0.4, 1.0)
    assert (one("most_predicted", rows), one("majority", rows)) == (1.0, 0.6)


def test_calibration_by_hand():
    """.6, .3, .1 over priors .7, .2, .1 are .86, 1.5, 1: the second label."""
    row = {"logprobs": np.log([0.6, 0.3, 0.1]), "priors": np.log([0.7, 0.2, 0.1]), "choices": NLI}
    assert [one("accuracy_calibrated", frame([{**row, "gold": label}])) for label in range(3)] == [0, 1, 0]


def test_the_most_frequent_prediction_may_be_no_label_at_all():
    """Predicted neutral, none, none, entailment: two of four."""
    rows = frame(
        {"logprobs": [], "choices": NLI, "gold": 1, "output": text} for text in ("neutral", "what?", "", "entailment")
    )
    assert one("most_predicted", rows) == 0.5
    assert one("most_predicted", rows[:1]) == 1.0


# Choices by length


def test_choices_by_token_and_by_byte_by_hand():
    """As a whole -3 is best; a token costs 3, 1 and 2.25; a byte 3/2, 4/7 and 4.5/9, where "日本語" has 9 bytes."""
    row = {"logprobs": [-3.0, -4.0, -4.5], "choices": ["no", "perhaps", "日本語"], "candidate_tokens": [1, 4, 2]}
    for gold in range(3):
        rows = frame([{**row, "gold": gold}])
        found = one("accuracy", rows), one("accuracy_per_token", rows), one("accuracy_per_byte", rows)
        assert found == (gold == 0, gold == 1, gold == 2)


def test_chance_counts_each_rows_choices():
    rows = frame({"choices": list("abcd")[:number], "logprobs": [0.0] * number, "gold": 0} for number in (2, 4, 4))
    assert one("chance", rows) == pytest.approx(1 / 3)


# Labels in generated text


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ("I know yes", ("no", "yes"), "no"),
        ("yes", ("no", "yes"), "yes"),
        ("yes, no", ("no", "yes"), "no"),
        ("Yes", ("no", "yes"), None),
        ("neutral contradiction", NLI, "contradiction"),
        ("entailment neutral", NLI, "neutral"),
        ("entailments", NLI, "entailment"),
        ("no", NLI, None),
        ("", NLI, None),
    ],
)
def test_published_label_is_the_first_in_the_search_order(text, labels, label):
    assert metrics.named_label(text, labels, "published") == label


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ("I know yes", ("no", "yes"), None),
        ("yes, no", ("no", "yes"), "yes"),
        (" Yes!", ("no", "yes"), "yes"),
        ("know", ("no", "yes"), None),
        ("neutral contradiction", NLI, "neutral"),
        ('"Entailment".', NLI, "entailment"),
        ("entailments", NLI, None),
        ("   ", NLI, None),
        ("", NLI, None),
    ],
)
def test_sound_label_is_the_word_that_the_text_starts_with(text, labels, label):
    assert metrics.named_label(text, labels, "sound") == label


def test_text_without_a_label_is_wrong_and_no_class():
    rows = frame({"logprobs": [], "choices": NLI, "gold": 1, "output": text} for text in ("neutral", "what?"))
    assert metrics.predicted(rows).tolist() == [1, -1]
    assert (one("accuracy", rows), one("macro_f1", rows)) == pytest.approx((0.5, 2 / 3))


def test_published_free_text_by_hand():
    """Searched for `no`, then `yes`: right are rows 2 and 3; `know` and `not` hold a `no`, `Yes` is no `yes`."""
    texts = [("I know yes", 1), ("not at all", 0), ("\n yes", 1), ("Yes", 1), ("", 0)]
    rows = pd.concat(
        frame([{"logprobs": [], "choices": ("no", "yes"), "gold": gold, "output": text, "id": str(number)}])
        for number, (text, gold) in enumerate(texts)
    ).assign(test="paws", test_format="io", shots=0)
    scores, items = metrics.scored(rows, {"protocol": "published", "labels": "generate"}, HOW)
    assert [item["value"] for item in items.to_pylist() if item["metric"] == "accuracy"] == [0, 1, 1, 0, 0]
    assert sorted({row["metric"] for row in scores}) == sorted(LABEL)


# Forced labels


def test_forced_labels_by_hand():
    """Free text names a label in rows 1 and 4; of the other three one is right."""
    free = ["it is neutral", "", "Entailment", "contradiction", "neu tral"]
    forced = ["neutral", "entailment", "a neutral one", "contradiction", "contradiction"]
    golds = [1, 0, 0, 0, 0]
    rows = frame(
        ({"logprobs": [], "choices": NLI, "gold": gold, "output": output, "free_output": text}
         for text, output, gold in zip(free, forced, golds, strict=True)),
        protocol="published",
    )  # fmt: skip
    assert metrics.forced(rows).tolist() == [0, 1, 1, 0, 1]
    assert (one("forced", rows), one("accuracy_forced", rows), one("accuracy", rows)) == (0.6, 1 / 3, 0.4)
    weights = np.array([[1, 0, 0, 4, 0], [0, 3, 1, 0, 1], [4, 1, 0, 0, 0.0]])
    found = metrics.METRICS["accuracy_forced"].estimates(rows, weights)
    assert found.tolist() == pytest.approx([np.nan, 0.6, 1.0], nan_ok=True)


def test_the_accuracy_of_forced_rows_is_a_share_of_these_alone():
    """One forced row of four, and right: a share of 1 of 1, whose interval says nearly nothing (Agresti & Coull, n = 1)."""
    rows = frame(
        ({"logprobs": [], "choices": NLI, "gold": 1, "output": "neutral", "free_output": text}
         for text in ("", "neutral", "neutral", "neutral")),
        protocol="published",
    )  # fmt: skip
    found = metrics.score(rows, "accuracy_forced", HOW)
    centre, n = (1 + 1.64485**2 / 2) / (1 + 1.64485**2), 1 + 1.64485**2
    low = centre - 1.64485 * (centre * (1 - centre) / n) ** 0.5
    assert (found.value, found.low, found.high, found.error, found.n) == (1, pytest.approx(low, abs=1e-5), 1, 0, 4)
    assert np.isnan(metrics.METRICS["accuracy_forced"].estimates(rows, next(HOW.weights(4)))).any()


def test_where_no_label_was_forced_its_accuracy_is_a_row_of_nulls(tmp_path):
    rows = constrained(np.random.default_rng(0), 6).assign(
        free_output="neutral", test="mnli", test_format="io", shots=4
    )
    scores, _ = metrics.scored(rows, {"protocol": "published", "labels": "constrained"}, HOW)
    [found] = [row for row in scores if row["metric"] == "accuracy_forced"]
    assert [found[key] for key in ("value", "error", "low", "high", "n")] == [None, None, None, None, 6]
    [share] = [row for row in scores if row["metric"] == "forced"]
    assert (share["value"], share["low"]) == (0, 0) and 0.3 < share["high"] < 0.6
    tables.write(scores, tables.SCORES, tmp_path / "part.parquet")
    assert tables.rows(tmp_path / "part.parquet")[scores.index(found)]["value"] is None


# Resamples and scores


def answers(rng, rows):
    """Rows with two right answers each, some of which are written, some half."""
    texts = ["the red fox", "fox", "a hen", "red hen", ""]
    return frame(
        {"logprobs": [float(rng.normal())], "candidate_tokens": [2], "choices": ["red fox", "hen"],
         "output": texts[number % len(texts)]} for number in range(rows)
    )  # fmt: skip


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_resample_is_scored_as_if_its_rows_were_written_out(name):
    """Multiplicities as weights give what the metric gives on rows repeated so often, classes that are gone left out."""
    rng = np.random.default_rng(3)
    makers = {
        "rouge_1": texts,
        "rouge_2": texts,
        "rouge_l": texts,
        "forced": constrained,
        "accuracy_forced": constrained,
    }
    makers |= dict.fromkeys(("exact_match", "answer_f1", "answer_log_likelihood"), answers)
    rows = makers.get(name, compared)(rng, 5)
    weights = rng.multinomial(5, np.full(5, 1 / 5), size=50).astype(float)
    found = metrics.METRICS[name].estimates(rows, weights)
    for estimate, times in zip(found, weights, strict=True):
        written_out = rows.loc[np.repeat(rows.index, times.astype(int))]
        assert estimate == pytest.approx(one(name, written_out), abs=1e-12, nan_ok=True)
    assert len(set(found.round(9))) > 1 or name == "chance"


def predictions():
    """Two tests, one of them in two formats."""
    rng = np.random.default_rng(4)
    parts = [("mnli", "default", compared(rng)), ("mnli", "io", compared(rng)), ("xsum", "default", texts(rng))]
    return pd.concat([rows.assign(test=test, test_format=format, shots=0) for test, format, rows in parts])


def test_scores_and_items_of_a_cell():
    scores, items = metrics.scored(predictions().drop(columns="protocol"), SOUND, HOW)
    found = [(row["test"], row["test_format"], row["metric"], row["n"]) for row in scores]
    label = ["accuracy", "accuracy_calibrated", "chance", "macro_f1", "majority", "most_predicted"]
    expected = [("mnli", format, metric, 60) for format in ("default", "io") for metric in label]
    assert found == [*expected, *(("xsum", "default", name, 20) for name in ROUGE)]
    table = items.to_pandas()
    for row in scores:
        if row["metric"] in ("accuracy", "accuracy_calibrated", "chance", *ROUGE):
            own = table[
                (table[["test", "test_format", "metric"]] == [row["test"], row["test_format"], row["metric"]]).all(
                    axis=1
                )
            ]
            assert own["value"].mean() == pytest.approx(row["value"]) and own["id"].nunique() == row["n"]
        if row["metric"] != "chance":
            assert row["low"] < row["value"] < row["high"] or row["metric"] == "majority"
    assert set(table["metric"]) == {"accuracy", "accuracy_calibrated", "chance", *ROUGE}


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("rank", ["accuracy", "accuracy_per_token", "accuracy_per_byte", "chance"]),
        ("label", ["accuracy", "accuracy_calibrated", *LABEL[1:]]),
        ("label_generated", LABEL),
        ("label_constrained", ["accuracy", "accuracy_forced", "chance", "forced", *LABEL[2:]]),
        ("generate", ROUGE),
    ],
)
def test_each_method_has_its_metrics(method, names):
    assert metrics.applicable(method, tables.PREDICTIONS.names) == names
    assert metrics.PRIMARY[method.split("_")[0]] in names


def test_optional_metrics_by_hand():
    """Log-probabilities -1, -2, -3 of answers of 2, 4 and 2 bytes, of which the second is right; alone -0.5, -1.9, -1."""
    rows = frame(
        {"logprobs": [-1.0, -2.0, -3.0], "priors": [-0.5, -1.9, -1.0], "choices": ["ab", "abcd", "é"], "gold": gold}
        for gold in (1, 0)
    )  # fmt: skip
    assert metrics.bits_per_byte(rows).tolist() == pytest.approx([0.7213475204, 0.7213475204])
    assert metrics.answer_probability(rows).tolist() == pytest.approx([0.2447284711, 0.6652409558])
    assert metrics.accuracy_unconditional(rows).tolist() == [1.0, 0.0]
    assert metrics.accuracy(rows).tolist() == [0.0, 1.0]


def test_optional_metrics_are_computed_where_they_are_named():
    rows = predictions().drop(columns="protocol")
    usual, _ = metrics.scored(rows, SOUND, HOW)
    more, items = metrics.scored(rows, SOUND, HOW, further=["bits_per_byte", "answer_probability"])
    new = {row["metric"] for row in more} - {row["metric"] for row in usual}
    assert new == {"bits_per_byte", "answer_probability"} <= set(items["metric"].to_pylist())
    assert [row for row in more if row["metric"] not in new] == usual
    assert {row["better"] for row in more if row["metric"] == "bits_per_byte"} == {"lower"}


def test_predictions_without_priors_are_scored_without_them():
    old = [name for name in tables.PREDICTIONS.names if name != "priors"]
    assert metrics.applicable("label", old) == LABEL


@pytest.mark.parametrize(
    ("test", "labels", "method"),
    [
        ("mnli", "score", "label"), ("paws", "generate", "label_generated"), ("rte", "constrained", "label_constrained"),
        ("arc_easy", "generate", "rank"), ("boolq", "constrained", "rank"), ("xsum", "score", "generate"),
    ],
)  # fmt: skip
def test_how_labels_are_predicted_concerns_label_tasks_alone(test, labels, method):
    assert metrics.method(task.load(test), labels) == method


def test_the_config_s_ways_of_predicting_labels_are_the_methods():
    suites = configs.schema()["properties"]["suites"]["additionalProperties"]["properties"]
    assert suites["labels"]["enum"] == list(metrics.LABEL_METHODS)


def test_the_published_value_is_the_middle_of_the_bootstrap_s_interval():
    """By a plain loop over resamples: the middle of their quantiles."""
    sound, _ = metrics.scored(predictions(), SOUND, HOW)
    published, _ = metrics.scored(predictions(), SOUND | {"protocol": "published"}, HOW)
    for one_row, other in zip(sound, published, strict=True):
        assert (one_row["low"], one_row["high"]) == (other["low"], other["high"])
    assert [row["value"] for row in sound] != [row["value"] for row in published]
    rows = predictions().query("test == 'mnli' and test_format == 'io'").assign(protocol="published")
    right, weights = metrics.accuracy(rows), next(HOW.weights(60)).astype(int)
    resampled = [np.repeat(right, times).mean() for times in weights]
    [found] = [r for r in published if (r["test_format"], r["metric"]) == ("io", "accuracy")]
    assert found["value"] == pytest.approx(np.quantile(resampled, [0.025, 0.975]).mean())


def test_a_forced_label_is_found_wherever_it_stands():
    labels = ["entailment", "neutral", "contradiction"]
    assert metrics.held_label("so it is neutral, no contradiction", labels, "sound") == "neutral"
    assert metrics.held_label("so it is neutral, no contradiction", labels, "published") == "contradiction"
    assert metrics.held_label("so it is", labels, "sound") is None


@pytest.mark.parametrize("labels", ["score", "generate", "constrained"])
@pytest.mark.parametrize("protocol", ["sound", "published"])
def test_what_cannot_be_scored_is_told_before_it_is_predicted(labels, protocol):
    """A label task without its gold label is scored by no method; others that are whole pass, of each kind one."""
    kinds = {
        "rte": task.Example({}, "no", ("yes", "no"), 1),
        "piqa": task.Example({}, "b c", ("a", "b c"), 1),
        "xsum": task.Example({}, "A summary."),
        "nq_open": task.Example({}, "Paris", ("Paris", "the city of Paris")),
    }
    suite = {"protocol": protocol, "labels": labels, "formats": ["default"], "shots": [0]}
    tests = {name: (task.load(name), [], [("test/1", example)] * 3) for name, example in kinds.items()}
    metrics.check(suite, tests)
    tests["rte"] = (task.load("rte"), [], [("test/1", task.Example({}, "no", ("yes", "no"), None))])
    with pytest.raises(StudyError, match=r"^test 'rte': cannot be scored: StudyError: a row has no gold choice"):
        metrics.check(suite, tests)


# Gathered tables

ROW_KEYS = ["family", "test", "metric", "id"]


def gathered(family="f", metric="accuracy", ids="abc", values=(0.0, 1.0, 0.5)):
    """Rows of one part."""
    keys = {"family": [family] * len(ids), "test": ["mnli"] * len(ids), "metric": [metric] * len(ids)}
    return pa.table(keys | {"id": list(ids), "value": pa.array(values, pa.float64())})


def test_gathered_rows_pass_one_by_one_and_rows_of_one_cell_may_be_in_two_parts():
    parts = [gathered(), gathered("g"), gathered(ids="def"), gathered(metric="loss", values=(7.0, None, 2.0))]
    assert list(metrics.checked(parts, ROW_KEYS, parts.__getitem__)) == parts


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (gathered(ids="xcy"), r"^family=f test=mnli metric=accuracy id=c: occurs twice; delete that part"),
        (gathered("h", ids="xyx"), r"^family=h test=mnli metric=accuracy id=x: occurs twice"),
        (gathered("h", values=(0.0, float("nan"), 1.0)), r"id=b: is nan, expected a finite number, or null"),
        (gathered("h", values=(0.0, 0.1, 1.5)), r"id=c: is 1.5, expected a share from 0 to 1"),
    ],
)
def test_a_row_that_occurs_twice_or_cannot_be_is_named(last, said):
    parts = [gathered(), gathered("g"), last]
    with pytest.raises(StudyError, match=said):
        list(metrics.checked(parts, ROW_KEYS, parts.__getitem__))
