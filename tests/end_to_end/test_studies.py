"""The studies at real scale: their configs hold, and a dry run lists the jobs that their grids mean."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import running
import yaml
from safetensors.numpy import save_file

from workflow.planning import config_checks
from workflow.study import grid

STUDIES = sorted(path.parent.name for path in (running.ROOT / "studies").glob("*/config.yaml"))
OFFLINE = ["olmo-1b", "olmo-2-1b", "pythia", "tinyllama"]
FORECAST = ["datadecide-1b", "olmo-1b-forecast"]


def config(name: str) -> dict:
    return yaml.safe_load((running.ROOT / "studies" / name / "config.yaml").read_text(encoding="utf-8"))


def test_every_study_is_tested_here():
    local = {"indicators-mini", "indicators-published", "local-folder", "published", "pythia-released", "real-sample"}
    assert set(STUDIES) == {*OFFLINE, *FORECAST, *local}


def test_the_published_study_at_full_scale_lists_its_jobs(tmp_path: Path) -> None:
    """8 bases; 4 tasks x 8 x (1 + 3 seeds) + instructions x 8 x 3 seeds = 152 tunings; rates are tried on the last base.

    Two suites for all 152 models and each base on each of 19 tests; two more for the 64 models tuned on MNLI and PAWS, and
    each base on each of four tests.
    """
    place = running.lay_out(tmp_path, config("olmo-1b"))
    jobs = running.planned(place)
    expected = {"fetch": 8, "prepare": 20, "tune": 152, "try_rate": 4 * 3, "choose": 4}
    expected |= dict.fromkeys(("predict", "score"), 2 * (152 + 8 * 19) + 2 * (64 + 8 * 4))
    assert {rule: count for rule, count in jobs.items() if rule in expected} == expected


def test_one_slice_of_it_is_a_target(tmp_path: Path) -> None:
    """MNLI on one suite: 8 bases on each of its seven tests, 8 x (1 + 3) tuned models, rates tried on one base."""
    place = running.lay_out(tmp_path, config("olmo-1b"))
    jobs = running.planned(place, "results/slices/train=mnli/suite=sound/scores.parquet")
    assert jobs["tune"] == 32 and jobs["predict"] == jobs["score"] == 32 + 8 * 7 and jobs["slice"] == 1
    assert (jobs["try_rate"], jobs["choose"], jobs["fetch"]) == (3, 1, 8)


@pytest.mark.parametrize(
    "name",
    # Pythia's many steps take ten seconds to plan.
    [pytest.param(name, marks=[pytest.mark.faults] * (name == "pythia")) for name in OFFLINE if name != "olmo-1b"],
)
def test_other_families_dry_run(name: str, tmp_path: Path) -> None:
    jobs = running.planned(running.lay_out(tmp_path, config(name)))
    study = config_checks.read(config(name))
    assert jobs["fetch"] == len(grid.bases(study))
    assert jobs["tune"] == 3 * 4 * len(grid.bases(study))
    # 13 tests of the tasks tuned on, each by itself for a base; six that every model is put to.
    assert jobs["predict"] == len(grid.parts(study)) == jobs["fetch"] * (13 + 1) + 2 * jobs["tune"]


def test_a_local_folder_dry_runs(tmp_path: Path) -> None:
    place = running.lay_out(tmp_path, config("local-folder"))
    ended = running.run(place, "--dry-run")
    assert ended.returncode == 1 and "families/mine/path: checkpoints is not a folder" in ended.stdout + ended.stderr
    for step in (500, 1000):
        folder = place / "study" / "checkpoints" / f"step{step}"
        folder.mkdir(parents=True)
        for file in ("config.json", "tokenizer.json"):
            (folder / file).write_text("{}")
        save_file({"weight": np.zeros(1, np.float32)}, folder / "model.safetensors")
    assert running.planned(place)["tune"] == 2 * 4 * 3


@pytest.mark.parametrize("name", FORECAST)
def test_studies_of_indicators_dry_run(name: str, tmp_path: Path) -> None:
    """16 bases: 7 tasks by 2 seeds tuned on each, rates tried on one base of each family; every split of the forecasts."""
    jobs = running.planned(running.lay_out(tmp_path, config(name)))
    study = config_checks.read(config(name))
    assert jobs["fetch"] == jobs["measure"] == 16 and jobs["tune"] == 16 * 7 * 2
    assert jobs["try_rate"] == 3 * 7 * len(study["families"])
    assert jobs["predict"] == len(grid.parts(study))
    assert jobs["forecast"] == 2 + len(study["cohorts"]["own"]["fields"])
    assert jobs["assemble"] == jobs["recommend"] == 1


def test_fifty_variants_are_those_of_the_published_design(tmp_path: Path) -> None:
    """35 of objective and rate, 10 of the mix, 5 of tag and length (arXiv 2504.12491, Table 4); each from one base on."""
    place = running.lay_out(tmp_path, config("indicators-mini"))
    table = running.ROOT / "studies" / "indicators-mini" / "variants.csv"
    (place / "study" / table.name).write_bytes(table.read_bytes())
    variants = pd.read_csv(table, dtype=str).fillna("none")
    own = variants.groupby(["mix", "tag", "length"]).size()
    assert len(variants) == 50 and own["none", "none", "none"] == 35
    whole = variants[(variants["mix"] == "none") & (variants["tag"] == "none") & (variants["length"] == "none")]
    assert (pd.crosstab(whole["objective"], whole["learning_rate"]) == 1).all(axis=None)
    assert sorted(variants.loc[variants["mix"] != "none", "objective"]) == ["clm"] * 5 + ["plm"] * 5
    jobs = running.planned(place)
    assert (jobs["pretrain"], jobs["measure"], jobs["tune"], jobs["forecast"]) == (51, 51, 153, 7)
