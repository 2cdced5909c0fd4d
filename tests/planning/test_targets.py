"""What Snakemake shows before a study runs: the list of targets, and one line where a study has no config."""

from pathlib import Path

import pytest
import running

pytestmark = pytest.mark.slow


def test_the_list_begins_with_the_targets_of_users(tmp_path: Path) -> None:
    ended = running.run(running.lay_out(tmp_path / "place", running.SMOKE), "--list")
    targets, rules = (part.splitlines() for part in ended.stdout.split("\n\n"))
    assert targets[0] == "Targets:" and rules[0] == "All rules:"
    assert [line.split(" ")[0] for line in targets[1:]] == [
        "all",
        "report",
        "estimate",
        "prefetch",
        "next",
        "select",
        "export",
    ]
    assert set(targets[1:]) < set(rules[1:])
    assert all(" (" in line and line.endswith(".)") and len(line) < 130 for line in targets[1:])


def test_a_folder_without_a_config_is_one_line(tmp_path: Path) -> None:
    place = running.lay_out(tmp_path / "place", running.SMOKE)
    (place / "study/config.yaml").rename(place / "elsewhere.yaml")
    ended = running.run(place, "--dry-run")
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert ended.returncode == 1
    assert line.startswith(
        f"{place / 'study/config.yaml'}: missing; a study is a folder with a config.yaml, and runs by"
    )
    assert running.planned(place, "--configfile", "elsewhere.yaml")
