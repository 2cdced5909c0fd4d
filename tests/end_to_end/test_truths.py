"""Does the default study find the truths planted in the mini world, whatever the world? (`make worlds`)"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import truths
import yaml
from running import ROOT, lay_out, run

from workflow.storage import tables
from workflow.tasks.mini_control import TASK as CONTROL

ALPHA = 0.05
FALSE_ALARM = 0.01  # that chance alone looks like learning anywhere in a world
SMALL = 0.10  # "adds little": the interval of the difference lies within this of zero


@dataclass(frozen=True)
class Found:
    """The default study's tables on one world."""

    analysis: pd.DataFrame
    findings: pd.DataFrame
    audit: pd.DataFrame

    def rows(self, analysis: str, **keys: str) -> pd.DataFrame:
        rows = self.analysis[self.analysis["analysis"] == analysis]
        rows = rows[(rows[list(keys)] == pd.Series(keys)).all(axis=1)].sort_values("step")
        assert rows["step"].nunique() == len(rows) >= 6, f"{keys}: expected one row for each of 6 or more steps"
        return rows

    def level(self, train: str, test: str) -> pd.DataFrame:
        return self.rows("performance", train=train, test=test)

    def change(self, train: str, test: str) -> pd.DataFrame:
        return self.rows("tuning_difference", train=train, test=test)


@pytest.fixture(scope="module", params=[0, 1, 2], ids="seed{}".format)
def found(request, tmp_path_factory) -> Found:
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")) | {"miniworld": {"seed": request.param}}
    del config["cohorts"]["published"]  # says nothing of a world
    place = lay_out(tmp_path_factory.mktemp("world") / "place", config)
    ended = run(place)
    assert ended.returncode == 0, ended.stderr
    return Found(*(tables.read(place / f"study/results/{name}.parquet") for name in ("analysis", "findings", "audit")))


def above_chance(lines: list[pd.DataFrame], chance: float) -> bool:
    """Whether any model is above chance: exact one-sided binomial tests, Bonferroni's correction over all lines and steps."""
    rows = pd.concat(lines)
    right = np.round(rows["value"] * rows["n"]).astype(int)
    p = [scipy.stats.binomtest(int(k), int(n), chance, "greater").pvalue for k, n in zip(right, rows["n"], strict=True)]
    return bool(min(p) < FALSE_ALARM / len(p))


@pytest.mark.worlds
def test_facts_are_learned_in_pretraining(found):
    """The last base answers at twice chance or better, the first does not, and tuning the last adds little."""
    base, change = found.level("none", "mini_facts"), found.change("mini_facts", "mini_facts").iloc[-1]
    assert base.iloc[-1]["low"] > 0.5 > base.iloc[0]["high"]
    assert -SMALL < change["low"] <= change["high"] < SMALL


@pytest.mark.worlds
def test_inference_is_latent(found):
    """No base is above chance; the tuned model is, and the more so the longer the pre-training."""
    base, tuned = found.level("none", "mini_inference"), found.level("mini_inference", "mini_inference")
    assert not above_chance([base], 1 / 3)
    assert tuned.iloc[-1]["low"] > tuned.iloc[0]["high"]
    assert tuned.iloc[-1]["low"] > 1 / 3
    trend = scipy.stats.kendalltau(tuned["step"].astype(int), tuned["value"], alternative="greater")
    assert trend.pvalue < ALPHA


@pytest.mark.worlds
def test_control_is_never_above_chance(found):
    """Random labels: neither base nor tuned model, in its domain or out of it."""
    pairs = [("none", "mini_control"), ("mini_control", "mini_control"), ("mini_control", "mini_control_ood")]
    assert not above_chance([found.level(*pair) for pair in pairs], 1 / len(CONTROL.labels))


@pytest.mark.worlds
@pytest.mark.parametrize("task", ["mini_summary", "mini_question"])
def test_writing_is_learned_in_tuning(found, task):
    """Tuning the last base adds a good fifth of ROUGE-L."""
    assert found.change(task, task).iloc[-1]["low"] > 0.2


@pytest.mark.worlds
def test_tuning_helps_out_of_domain(found):
    """What tuning teaches serves for premises in other words."""
    assert found.change("mini_inference", "mini_inference_ood").iloc[-1]["low"] > 0


@pytest.mark.worlds
def test_a_shortcut_helps_at_home_and_hurts_elsewhere(found):
    """What predicts the label in training predicts the wrong one out of domain."""
    assert found.change("mini_paraphrase", "mini_paraphrase").iloc[-1]["low"] > 0
    assert found.change("mini_paraphrase", "mini_paraphrase_ood").iloc[-1]["high"] < 0


@pytest.mark.worlds
def test_the_findings_say_what_is_planted_and_nothing_false(found):
    """Each planted truth is among the statements, none of them contradicts one, and each follows from its table."""
    assert truths.said(found.findings["statement"], truths.TRUTHS) == set(truths.TRUTHS)
    assert truths.said(found.findings["statement"], truths.LIES) == set()
    for row in found.findings[found.findings["table"].isin(["analysis", "audit"])].to_dict("records"):
        truths.check(row, {"analysis": found.analysis, "audit": found.audit})
