"""The page of answers: cards, questions, figures, tables and their safety, on made-up tables whose numbers can be checked."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import page_study
import pandas as pd
import pytest

from workflow.analysis.power import units_needed
from workflow.report.page import audit_groups, cards, charts, data_tables, questions, rendering

HOSTILE = (
    *("<script>window.hit=1</script>", "</script><script>window.hit=1</script>", "<img src=x onerror=window.hit=1>"),
    *("\"><svg onload=window.hit=1>", "' onmouseover='window.hit=1", "javascript:window.hit=1", "{{ 7 * 7 }}", "{% raw %}"),
    *("</style><script>window.hit=1</script>", "</title><b>x", "<!--", "-->", "]]>", "&lt;b&gt;", "&#60;script&#62;"),
    *("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\x00nul", "\x1b[31mred", "a\x08b", "\u202edesrever"),
    *("\u200bzero", "<a href='https://example.org'>x</a>", "%s%n", "${7*7}", "<iframe src=//example.org>", "\ufeffmark"),
)  # fmt: skip


class Read(HTMLParser):
    """What a page holds: tags with their attributes, and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else self.inside

    def handle_endtag(self, tag):
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data):
        if not self.inside:
            self.text.append(data)


def parsed(page: str) -> Read:
    read = Read()
    read.feed(page)
    return read


def test_hostile_texts_are_text() -> None:
    assert len(HOSTILE) == 30
    plain, hostile = (parsed(rendering.page(page_study.inputs(texts))) for texts in ((), HOSTILE))
    shown = "".join(hostile.text)
    for text in HOSTILE:
        assert rendering.clean(text) in shown, text
    kinds = {tag for tag, _ in plain.tags}
    assert {tag for tag, _ in hostile.tags} <= kinds, "a text has become an element"
    assert len([tag for tag, _ in hostile.tags if tag == "script"]) == len(
        [tag for tag, _ in plain.tags if tag == "script"]
    )
    for _, attributes in hostile.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert all(
            (attributes.get(name) or "#")[:5] in ("#", "data:") or attributes[name].startswith("#")
            for name in ("href", "src")
        )
    assert not set("\x00\x1b\x08\u202e\u200b\ufeff") & set(shown)


def test_the_policy_allows_the_scripts_of_the_page_and_nothing_else() -> None:
    page = rendering.page(page_study.inputs())
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 3
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("style-src-attr")[0]


@pytest.mark.parametrize(
    ("values", "badge", "words"),
    [
        ({1: (0.4, 0.2), 2: (0.5, 0.8)}, "one seed: no recommendation", "Step 2 (2K tokens), full fine-tuning"),
        ({1: (0.5, 0.5), 2: (0.5, 0.5)}, "equal scores", "Steps 1, 2 tie, full fine-tuning (numbers of step 2)"),
        ({2: (0.5, 1.0)}, "only one checkpoint", "Step 2 (2K tokens), full fine-tuning"),
        ({1: (0.2, 0.5), 2: (0.3, 0.5)}, "not above chance", "Step 2 (2K tokens), full fine-tuning"),
    ],
)
def test_a_card_says_how_clear_the_answer_is(values, badge, words) -> None:
    own = page_study.inputs(recommendations=pd.DataFrame(page_study.recommended("quiz", values)))
    (card,) = cards.cards(own)
    assert (card.badge, card.headline) == (badge, words)


def test_a_checkpoint_that_fine_tuning_does_not_improve_is_not_called_a_pick() -> None:
    """Changes of .02 with an interval from -.03 to .07."""
    analysis = page_study.inputs().tables["analysis"]
    home = (analysis["analysis"] == "tuning_difference") & (analysis["test"] == "quiz")
    analysis.loc[home, ["value", "low", "high"]] = 0.02, -0.03, 0.07
    (card,) = cards.cards(page_study.inputs(analysis=analysis))
    assert (card.badge, card.tone) == ("no gain by fine-tuning shown", "bad")
    assert dict(card.facts)["Before fine-tuning"].endswith("No gain is shown: the checkpoint may be used as it is.")


def test_bases_with_one_score_have_one_probability() -> None:
    values = {1: (0.5, 0.3), 2: (0.5, 0.3), 3: (0.4, 0.4)}
    (card,) = cards.cards(page_study.inputs(recommendations=pd.DataFrame(page_study.recommended("quiz", values))))
    assert "Probability of being the best of 3: the 2 tied together 60%, step 3 40%." in dict(card.facts)["How sure"]


def test_two_seeds_and_a_high_probability_make_an_answer_clear() -> None:
    study = page_study.inputs(
        recommendations=pd.DataFrame(page_study.recommended("quiz", {1: (0.4, 0.02), 2: (0.6, 0.98)}))
    )
    again = study.tables["scores"].assign(seed=1)
    scores = pd.concat([study.tables["scores"], again[again["train"] != "none"]])
    (card,) = cards.cards(page_study.inputs(recommendations=study.tables["recommendations"], scores=scores))
    assert card.badge == "clear" and "2 seeds" in card.score
    assert dict(card.facts)["What would settle it"] == "Settled at the level of the intervals."


def test_an_answer_is_about_one_number_of_shots() -> None:
    rows = page_study.recommended("quiz", {1: (0.4, 0.2), 2: (0.5, 0.8)})
    more = [row | {"filter": row["filter"].replace('"shots": 0', '"shots": 4'), "step": 9} for row in rows]
    (card,) = cards.cards(page_study.inputs(recommendations=pd.DataFrame(rows + more)))
    assert card.badge == "one seed: no recommendation" and "step 9" not in dict(card.facts)["How sure"]
    assert dict(card.facts)["How sure"].startswith("Probability of being the best of 2: step 2 80%, step 1 20%.")


def test_a_model_of_one_label_is_called_that() -> None:
    study = page_study.inputs()
    more = pd.DataFrame([page_study.score(2, "quiz", "quiz", 1.0, "most_predicted", primary=False)])
    (card,) = cards.cards(page_study.inputs(scores=pd.concat([study.tables["scores"], more])))
    assert card.badge == "predicts one label" and card.tone == "bad"


def test_lora_and_full_share_a_card_the_better_first() -> None:
    rows = page_study.recommended("quiz", {2: (0.5, 1.0)}) + page_study.recommended("quiz", {2: (0.6, 1.0)}, "lora")
    (card,) = cards.cards(page_study.inputs(recommendations=pd.DataFrame(rows)))
    assert card.headline.endswith("LoRA")
    assert dict(card.facts)["Full or LoRA"] == "LoRA (lora) 0.600; full fine-tuning (full) 0.500."


def test_a_drop_is_named_and_a_floor_has_nothing_to_forget() -> None:
    (card,) = cards.cards(page_study.inputs())
    assert dict(card.facts)["Forgetting"].startswith(
        "1 of 1 other tests drops significantly (Holm over these): essay −0.200."
    )
    scores, analysis = (page_study.inputs().tables[name] for name in ("scores", "analysis"))
    scores.loc[(scores["test"] == "essay") & (scores["train"] == "none"), ["value", "low"]] = 0.0
    analysis["p_value"] = 1.0
    (card,) = cards.cards(page_study.inputs(scores=scores, analysis=analysis))
    assert dict(card.facts)["Forgetting"] == (
        "None of 1 other tests drops significantly. 1 starts at chance or 0, so there is little to forget."
    )


def test_without_recommendations_the_page_says_so() -> None:
    empty = page_study.inputs(recommendations=pd.DataFrame())
    assert cards.lead(cards.cards(empty), empty) == [
        "No checkpoint was fine-tuned or compared on a test, so there is no answer."
    ]


def test_units_needed_follow_the_textbook() -> None:
    # Cohen (1988): n = ((1.95996 + 0.84162) * sd / difference)^2 with error = sd / sqrt(units): (2.80158 * 1 / 0.5)^2 = 31.4
    assert units_needed(0.5, 1 / 10**0.5, 10, 0.95) == 32
    assert units_needed(-0.5, 1 / 10**0.5, 10, 0.95) == 32
    assert units_needed(0.0, 0.1, 10, 0.95) is None and units_needed(0.1, float("nan"), 10, 0.95) is None


def test_findings_are_grouped_by_question_with_a_summary() -> None:
    (question,) = questions.questions(page_study.inputs(("first",)))
    assert question.title == "What does fine-tuning teach?" and len(question.findings) == 2
    assert "1 of 2" not in question.summary and "in 2 of 2 cases: 2 rise, 0 fall" in question.summary
    assert question.findings[0].count == 4 or question.findings[0].count > 0


def test_a_finding_links_to_the_panel_of_its_figure() -> None:
    study = page_study.inputs()
    where = {"finding": "transfer", "section": "transfer", "statement": "hurts", "warnings": [], "table": "analysis"}
    about = {"train": "quiz", "test": "essay"}
    gone = where | {"finding": "costs", "section": "cost", "filter": "{}"}
    rows = [where | {"filter": json.dumps(about)}, gone, where | {"finding": "gains", "filter": json.dumps(about)}]
    own = page_study.inputs(findings=pd.concat([study.tables["findings"].head(0), pd.DataFrame(rows)]))
    links = {
        (finding.figure.key, finding.panel) if finding.figure else None
        for question in questions.questions(own, list(charts.charts(own)))
        for finding in question.findings
    }
    # Panels of `transfer` are tasks tuned on, those of `gain` tests, of which `essay` is another task's.
    assert links == {("transfer", "quiz"), None, ("gain", "")}
    page = rendering.page(own)
    assert '<a class="shows" href="#figure-transfer" data-panel="quiz">' in page
    for target in re.findall(r'class="shows" href="#([^"]+)"', page):
        assert f'<figure id="{target}"' in page


def test_the_audit_has_one_line_for_each_kind() -> None:
    ((severity, name, kinds),) = audit_groups.audit_groups(page_study.inputs(tuple("abc")))
    assert (severity, name) == ("warning", "Warnings")
    assert [(kind.name, kind.number) for kind in kinds] == [("single seeds", 4)]
    assert len(audit_groups.shortened("x" * 6000)) <= audit_groups.LONGEST


def test_downloads_hold_the_whole_table_and_no_formula() -> None:
    made = {own.name: own for own in data_tables.data_tables(page_study.inputs(("=1+1",)))}
    scores = made["scores"]
    assert "chance" in scores.columns and scores.columns.index("value") < scores.columns.index("chance")
    read = pd.read_parquet(io.BytesIO(base64.b64decode(scores.parquet.split(",", 1)[1])))
    assert len(read) == scores.count and set(read["metric"]) == {"accuracy"}
    text = gzip.decompress(base64.b64decode(made["audit"].csv.split(",", 1)[1])).decode()
    assert "'=1+1" in text and ",=1+1" not in text


def test_a_single_step_has_an_interval_and_axes_are_those_that_all_points_have() -> None:
    study = page_study.inputs()
    home = next(chart for chart in charts.charts(study) if chart.key == "home")
    assert home.figure["axes"] == ["step", "tokens"], "FLOPs need the number of parameters"
    assert {panel["y"] for panel in home.figure["panels"]} == {"accuracy"}
    lines = [trace for trace in home.figure["traces"] if "y" in trace]
    assert all(len(trace["y"]) == len(trace["low"]) == len(trace["high"]) for trace in lines)
    sized = page_study.PageInputs(study.tables, study.settings, parameters={"fam": 1e6})
    first = next(chart for chart in charts.charts(sized) if chart.key == "home").figure
    assert first["axes"][-1] == "FLOPs" and first["traces"][0]["x"]["FLOPs"][0] == 6e6 * 1000
    assert json.loads(str(rendering.data(first)))["axes"] == list(first["axes"])


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("back", ["#ffffff", "#14171a"])
def test_lines_have_contrast_in_light_and_dark(back: str) -> None:
    for colour in charts.COLOURS:
        high, low = sorted((luminance(colour), luminance(back)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 3, colour
