"""Names of checkpoints: patterns with several names, the steps that a study takes, equal weights known before a download."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from models.test_checkpoints import Client, client, hub, hub_root  # noqa: F401

from workflow.errors import StudyError
from workflow.models import revisions

PYTHIA = [0, *(2**power for power in range(10)), *range(1000, 143001, 1000)]  # the steps of the Pythia suite


def refusal(call: Callable[[], object]) -> str:
    """The message of the StudyError that a call must raise, of one line."""
    with pytest.raises(StudyError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("stage{stage}-step{step}", "stage1-step7", {"stage": "1", "step": "7"}),
        ("stage{stage}-step{step}", "stage2-ingredient3-step7", {"stage": "2-ingredient3", "step": "7"}),
        ("step{step}-seed-{seed}", "step1250-seed-large-aux-2", {"step": "1250", "seed": "large-aux-2"}),
        ("seed{seed}/step{step}", None, None),
        ("a{{x}}{step}", "a{x}12", {"step": "12"}),
        ("{run}_{step}", "b.2_40", {"run": "b.2", "step": "40"}),
        ("{run}-step{step}", "a b-step4", None),
    ],
)
def test_a_pattern_with_several_names(pattern: str, name: str | None, expected: dict[str, str] | None) -> None:
    if name is None:
        assert "expected a name with {step} in it once" in refusal(lambda: revisions.expression("f", pattern))
        return
    match = revisions.expression("f", pattern).fullmatch(name)
    assert (match and match.groupdict()) == expected


def test_a_suffix_is_not_part_of_the_last_name() -> None:
    found = revisions.matches(
        revisions.expression("f", "stage{stage}-step{step}"), ["stage1-step10-tokens4B", "stage1", "main"]
    )
    assert {name: match.groupdict() for name, match in found.items()} == {
        "stage1-step10-tokens4B": {"stage": "1", "step": "10"}
    }


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("all", PYTHIA),
        ([1000, 1], [1, 1000]),
        ({"every": 50000}, [0, 50000, 100000]),
        ({"every": 50000, "also": [143000, 512]}, [0, 512, 50000, 100000, 143000]),
        ({"count": 4, "spacing": "linear"}, [0, 48000, 95000, 143000]),  # 143000/3 = 47667, 2 * 143000/3 = 95333
        # ln(143001) / 4 = 2.968; ln(1 + step) of 16: 2.833, 256: 5.549, 512: 6.240 (nearer to 5.935), 7000: 8.854
        ({"count": 5, "spacing": "log"}, [0, 16, 512, 7000, 143000]),
        ({"count": 2, "spacing": "log", "also": [8]}, [0, 8, 143000]),
        ({"count": 1, "spacing": "log"}, [143000]),
        ({"count": len(PYTHIA), "spacing": "log"}, PYTHIA),
    ],
)
def test_steps_that_are_taken(listed: Any, expected: list[int]) -> None:
    assert revisions.chosen("f", listed, PYTHIA) == expected


@pytest.mark.parametrize("spacing", ["log", "linear"])
def test_as_many_steps_as_asked_for_even_where_they_lie_close(spacing: str) -> None:
    steps = [10, 11, 12, 13, 1000]
    for count in range(2, 6):
        found = revisions.spread(steps, count, spacing)
        assert len(set(found)) == count and found == sorted(found)
        assert found[0] == 10 and found[-1] == 1000


def test_steps_that_cannot_be_taken() -> None:
    every = refusal(lambda: revisions.chosen("f", {"every": 7}, [10, 20, 30]))
    assert every == "config.yaml: families/f/steps/every: no step is a multiple of 7; there are 10, 20, 30"
    count = refusal(lambda: revisions.chosen("f", {"count": 4, "spacing": "log"}, [10, 20]))
    assert count == "config.yaml: families/f/steps/count: 4 is not allowed; allowed: 2 or less, as many as exist"
    also = refusal(lambda: revisions.chosen("f", {"every": 10, "also": [25]}, [10, 20]))
    assert also == "config.yaml: families/f/steps: there is no step 25; allowed: 10, 20"


HUB = {"source": "hub", "repo": "lab/olmo", "pattern": "step{step}"}


def test_all_steps_of_a_repository() -> None:
    refs = {"main": {"m"}, "step10-tokens1B": {"a"}, "step10": {"a"}, "step5": {"b"}, "other7": {"c"}}
    assert revisions.steps_on_hub("f", HUB, refs) == [5, 10]
    assert revisions.steps_on_hub("f", {**HUB, "main_step": 12}, refs) == [5, 10, 12]
    two = refusal(lambda: revisions.steps_on_hub("f", HUB, {**refs, "step10": {"d"}}))
    assert (
        two
        == "config.yaml: families/f/pattern: step 10 has several revisions: step10, step10-tokens1B; expected one commit"
    )
    none = refusal(lambda: revisions.steps_on_hub("f", {**HUB, "pattern": "epoch{step}"}, refs))
    assert none == "config.yaml: families/f/pattern: no revision of lab/olmo matches epoch{step}"


def pin(**files: str) -> dict[str, Any]:
    """A pin of weight files with their hashes."""
    stated = {f"{name}.safetensors": {"bytes": 9, "sha256": sha} for name, sha in files.items()}
    return {"repo": "lab/olmo", "files": {**stated, "config.json": {"bytes": 2, "git": "same"}}}


def test_equal_weights_are_known_from_the_pins() -> None:
    pins = {
        ("a", 1): pin(one="A", two="B"),
        ("a", 2): pin(one="A", two="B"),
        ("a", 3): pin(one="A", two="C"),
        ("a", 4): pin(one="D", two="E"),
        ("b", 4): pin(one="D", two="E"),
    }
    assert list(revisions.equal_weights(pins)) == [
        "steps 1, 2 of a have the same weights: one.safetensors, two.safetensors",
        "step 4 of a and step 4 of b have the same weights: one.safetensors, two.safetensors",
        "steps 1, 3 of a have the same one.safetensors, but other weight files that differ; one may hold a part of another",
    ]
    assert not list(revisions.equal_weights({("a", 1): pin(one="A"), ("a", 2): pin(one="B")}))


def test_steps_of_one_commit_are_known_from_the_revisions(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    refs = {"step1": ["x"], "step2-a": ["x"], "step3": ["y"], "main": ["x"]}
    (tmp_path / "lab/olmo.json").write_text(json.dumps({"repo": "lab/olmo", "revisions": refs}))
    found = revisions.equal_commits("f", HUB, [1, 2, 3], tmp_path)
    assert list(found) == ["steps 1, 2 of f are one commit of lab/olmo"]
    assert not list(revisions.equal_commits("f", HUB, [1, 3], tmp_path))
    assert not list(revisions.equal_commits("f", {**HUB, "repo": "lab/other"}, [1, 2], tmp_path))


LOOK = "import sys; from pathlib import Path; from workflow.models import revisions; from workflow.errors import StudyError\n"
LOOK += "try: print(sorted(revisions.looked_up(sys.argv[1], Path(sys.argv[2]))))\n"
LOOK += "except StudyError as error: print(error); sys.exit(3)"


def test_revisions_are_looked_up_once(hub: HubServer, client: Client, tmp_path: Path) -> None:  # noqa: F811
    place = str(tmp_path / "records")
    failed = client.run(LOOK, "lab/nothing", place)
    assert failed.returncode == 3 and failed.stdout.startswith(
        "lab/nothing: its revisions cannot be listed: not found on "
    )
    assert not (tmp_path / "records").exists()
    first = client.run(LOOK, "lab/olmo", place)
    assert first.stdout.strip() == str(["main", "step100-tokens0B", "step1000-tokens4B", "step1000000-tokens4194B"])
    asked = len(hub.requests)
    assert client.run(LOOK, "lab/olmo", place).stdout == first.stdout
    assert len(hub.requests) == asked, "a later start needs no network"
