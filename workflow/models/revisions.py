"""Names of checkpoints: what a pattern of folders or revisions means, which steps there are, and which of them a study takes."""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow.errors import StudyError
from workflow.settings import Family
from workflow.storage import hub
from workflow.storage.files import json_object, write_json

STEP = "step"
PLACEHOLDER = re.compile(r"(\{\{|\}\}|\{[a-z][a-z0-9_]*\}|\*)")
BRACES = {"{{": "{", "}}": "}"}  # a brace itself is written twice
VALUE = "[A-Za-z0-9][A-Za-z0-9._-]*"  # what a name in braces other than {step} stands for
RECORDS = Path("resources/revisions")  # the branches and tags of repositories, as they were first looked up
MOST = 9  # steps that a message lists


def names_in(text: str) -> list[str]:
    """Return the names in braces of a pattern, without `step`."""
    return [part[1:-1] for part in PLACEHOLDER.findall(text) if part not in ("*", f"{{{STEP}}}", *BRACES)]


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a pattern with values in place of some of its names in braces."""
    return PLACEHOLDER.sub(lambda match: values.get(match[0][1:-1], match[0]), text)


def expression(name: str, pattern: str) -> re.Pattern[str]:
    """Return a family's pattern of folders or revisions, with `{step}` in it once, as an expression (`compiled`)."""
    mistake = f"config.yaml: families/{name}/pattern"
    if PLACEHOLDER.findall(pattern).count(f"{{{STEP}}}") != 1 or re.search(r"[/\\]|\.\.", pattern):
        raise StudyError(
            f"{mistake}: {pattern!r} is not allowed; expected a name with {{step}} in it once, * for anything"
        )
    return compiled(mistake, pattern)


def compiled(key_path: str, pattern: str) -> re.Pattern[str]:
    """Return a pattern of folders or revisions as an expression.

    `{step}` stands for digits, any other name in braces for letters, digits and `. _ -`, `*` for anything; `{{` and `}}` for
    braces. A `*` beside `{step}` never matches a digit of the step. key_path: of the pattern in the config, for errors.
    Errors: StudyError unless each name appears once and apart from others, and none leads out of a folder.
    """
    key_path = f"{key_path}: {pattern!r} is not allowed; expected a name"
    parts = [part for part in PLACEHOLDER.split(pattern) if part]
    if re.search(r"[/\\]|\.\.", pattern):
        raise StudyError(f"{key_path} without / and ..")
    names = [part for part in parts if _stands_for_text(part) and part != "*"]
    if len(set(names)) < len(names):
        raise StudyError(f"{key_path} with each name in braces once")
    for first, other in itertools.pairwise(parts):
        if _stands_for_text(first) and _stands_for_text(other) and {first, other} != {"*", f"{{{STEP}}}"}:
            raise StudyError(f"{key_path} with text between {first} and {other}")
    sides = zip(["", *parts], parts, [*parts[1:], ""], strict=False)
    return re.compile("".join(_expressed(*three) for three in sides), re.DOTALL)


def _stands_for_text(part: str) -> bool:
    """Return whether a part of a pattern is a name in braces or `*`."""
    return bool(PLACEHOLDER.fullmatch(part)) and part not in BRACES


def _expressed(before: str, part: str, after: str) -> str:
    """Return one part of a pattern as an expression."""
    if part == "*":
        return ".*"
    if not _stands_for_text(part):
        return re.escape(BRACES.get(part, part))
    if part != f"{{{STEP}}}":
        return f"(?P<{part[1:-1]}>{VALUE})"
    start, end = "(?<![0-9])" if before == "*" else "", "(?![0-9])" if after == "*" else ""
    return f"{start}(?P<{STEP}>[0-9]+){end}"


def matches(expression: re.Pattern[str], names: Iterable[str]) -> dict[str, re.Match[str]]:
    """Return the revisions that match an expression whole, or followed by `-<anything>` such as a token count."""
    extended = re.compile(f"(?:{expression.pattern})(-.*)?", expression.flags)
    return {name: match for name in names if (match := extended.fullmatch(name))}


def numbered(expression: re.Pattern[str], names: Iterable[str]) -> dict[str, int]:
    """Return the steps of the revisions that match an expression."""
    return {name: int(match[STEP]) for name, match in matches(expression, names).items()}


def looked_up(repo: str, records: Path = RECORDS) -> dict[str, set[str]]:
    """Return the branches and tags of a repository with their commits, as a study's first start found them.

    They are recorded, so that later starts need no network and find the same steps.
    Errors: StudyError if the hub cannot be reached and there is no record.
    """
    record = records / f"{repo}.json"
    if not record.is_file():
        with hub.errors(f"{repo}: its revisions cannot be listed"):
            commits_of = {name: sorted(commits) for name, commits in sorted(hub.refs(repo).items())}
        write_json({"repo": repo, "revisions": commits_of}, record)
    revisions = json_object(record).get("revisions")
    if not isinstance(revisions, dict):
        raise StudyError(f"{record}: 'revisions' is missing; delete the file, and it is made again")
    return {name: set(commits) for name, commits in revisions.items()}


def steps_on_hub(name: str, family: Family, refs: Mapping[str, set[str]]) -> list[int]:
    """Return all steps that a hub family's revisions give, with `main_step` if it is set.

    Errors: StudyError if there are none, or if two commits are one step.
    """
    commits: dict[int, set[str]] = defaultdict(set)
    steps = numbered(expression(name, family["pattern"]), refs)
    for ref, step in steps.items():
        commits[step] |= refs[ref]
    if not commits:
        raise StudyError(
            f"config.yaml: families/{name}/pattern: no revision of {family['repo']} matches {family['pattern']}{hub.where()}"
        )
    for step in sorted(step for step, revisions in commits.items() if len(revisions) > 1):
        fitting = ", ".join(sorted(ref for ref, other in steps.items() if other == step))
        raise StudyError(
            f"config.yaml: families/{name}/pattern: step {step} has several revisions: {fitting}; expected one commit"
        )
    return sorted({*commits, *([family["main_step"]] if "main_step" in family else [])})


def chosen(name: str, listed: Any, available: Sequence[int]) -> list[int]:
    """Return the steps that the key `steps` of a family takes of the available ones, sorted.

    listed: `all`, a list, `{every: …}` or `{count: …, spacing: …}`, the last two with steps to take as well in `also`.
    Errors: StudyError for a step that does not exist, or if too few do.
    """
    key_path = f"config.yaml: families/{name}/steps"
    if listed == "all":
        return sorted(available)
    also = listed.get("also", []) if isinstance(listed, Mapping) else listed
    for step in also:
        if step not in available:
            raise StudyError(
                f"config.yaml: families/{name}/steps: there is no step {step}; allowed: {', '.join(map(str, available))}"
            )
    if not isinstance(listed, Mapping):
        return sorted(listed)
    if "every" in listed:
        steps_chosen = [step for step in available if step % listed["every"] == 0]
        if not steps_chosen:
            raise StudyError(
                f"{key_path}/every: no step is a multiple of {listed['every']}; there are {shortened(available)}"
            )
    elif listed["count"] > len(available):
        raise StudyError(
            f"{key_path}/count: {listed['count']} is not allowed; allowed: {len(available)} or less, as many as exist"
        )
    else:
        steps_chosen = spread(sorted(available), listed["count"], listed["spacing"])
    return sorted({*steps_chosen, *also})


def spread(steps: Sequence[int], count: int, spacing: str) -> list[int]:
    """Return `count` of the sorted steps, the first and last among them, evenly spaced by log(1 + step) or by step.

    Each is the step nearest to its place on the scale among those that leave enough for the places after it; with a count
    of 1, the last.
    """
    scale = [math.log1p(step) if spacing == "log" else float(step) for step in steps]
    if count == 1:
        return [steps[-1]]
    steps_chosen: list[int] = []
    for index in range(count):
        goal = scale[0] + (scale[-1] - scale[0]) * index / (count - 1)
        first = steps_chosen[-1] + 1 if steps_chosen else 0
        left = range(first, len(steps) - (count - 1 - index))
        steps_chosen.append(min(left, key=lambda number: abs(scale[number] - goal)))
    return [steps[number] for number in steps_chosen]


def shortened(steps: Iterable[int]) -> str:
    """Return steps as text; of many, the first and the last."""
    texts = [str(step) for step in steps]
    return ", ".join(texts if len(texts) <= MOST else [*texts[: MOST - 2], "…", texts[-1]])


Bases = Mapping[tuple[str, int], hub.Pin]


def equal_weights(pins: Bases) -> Iterator[str]:
    """Yield a line for each set of bases on the hub that have the same weights, all or some of their files.

    Known from the hashes that the hub states, so before anything is downloaded. pins: (family, step) -> pin.
    """
    whole: dict[frozenset[str], list[tuple[str, int]]] = defaultdict(list)
    for base, pinned in pins.items():
        whole[frozenset(_weights(pinned))].append(base)
    for hashes, bases in whole.items():
        if hashes and len(bases) > 1:
            yield f"{_told(bases)} have the same weights: {_files(pins[bases[0]], hashes)}"
    shared: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for hashes, bases in whole.items():
        for one in hashes:
            shared[one].append(bases[0])
    together: dict[tuple[tuple[str, int], ...], set[str]] = defaultdict(set)
    for one, bases in shared.items():
        if len(bases) > 1:
            together[tuple(bases)].add(one)
    for owners, files in together.items():
        names = _files(pins[owners[0]], files)
        yield f"{_told(owners)} have the same {names}, but other weight files that differ; one may hold a part of another"


def equal_commits(name: str, family: Family, steps: Iterable[int], records: Path = RECORDS) -> Iterator[str]:
    """Yield a line for each set of some steps of a family whose revisions are one commit, where they have been looked up."""
    if "repo" not in family or not (records / f"{family['repo']}.json").is_file():
        return
    refs = looked_up(family["repo"], records)
    commits: dict[str, set[int]] = defaultdict(set)
    for ref, step in numbered(expression(name, family["pattern"]), refs).items():
        commits[min(refs[ref])].add(step)
    wanted = set(steps)
    for steps_of_commit in commits.values():
        if len(steps_of_commit & wanted) > 1:
            yield f"{_told((name, step) for step in steps_of_commit & wanted)} are one commit of {family['repo']}"


def _weights(pinned: hub.Pin) -> dict[str, str]:
    """Return hash -> name of the weight files of a pin."""
    files = pinned["files"].items()
    return {str(told.get("sha256", told.get("git"))): name for name, told in files if name.endswith(".safetensors")}


def _files(pinned: hub.Pin, hashes: Iterable[str]) -> str:
    """Return the names of weight files."""
    return ", ".join(sorted(_weights(pinned)[one] for one in hashes))


def _told(bases: Iterable[tuple[str, int]]) -> str:
    """Return bases as text, family by family."""
    steps: dict[str, list[int]] = defaultdict(list)
    for family, step in bases:
        steps[family].append(step)
    return " and ".join(
        f"step{'s' if len(steps_of_family) > 1 else ''} {shortened(sorted(steps_of_family))} of {family}"
        for family, steps_of_family in steps.items()
    )
