"""Task files of lm-evaluation-harness (YAML): finds tasks, groups and tags in a folder, and merges what files include.

Files are data: no tag of YAML is resolved, so no code that a file names is imported or run. Files outside the folder are not
read. The lookup follows the harness's own (lm_eval 0.4.13): of several files for one name the first by path counts, a tag stands
for its tasks in alphabetical order, and a file's own keys win over those that it includes.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from workflow.errors import StudyError, first_line, shown

DEFAULT = "default"  # as a folder: the task files of the installed package
UNLOADED = ("__pycache__", ".ipynb_checkpoints")
KEYS = ("task", "group", "tag", "include")
# A key at the start of a line, with the rest of the line and lines that go on with it.
ENTRY = re.compile(rf"^[\"']?(?P<key>{'|'.join(KEYS)})[\"']?[ \t]*:(?P<value>.*(?:\n(?:[ \t-].*|))*)", re.MULTILINE)
WORD = re.compile(r"[^\s\"',\[\]{}#]+")


@dataclass(frozen=True)
class Tagged:
    """A value that a file marks with a tag of YAML, such as `!function`: never resolved, always refused."""

    tag: str
    value: str

    def __str__(self) -> str:
        """The tag with its value, as in the file."""
        return f"{self.tag} {self.value}".strip()


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the C loader is there or not
    """A safe loader that keeps tagged values as Tagged."""


def _tagged(loader: Any, suffix: str, node: yaml.Node) -> Tagged:
    """The tagged value of a node."""
    return Tagged(node.tag, node.value if isinstance(node, yaml.ScalarNode) else "")


Loader.add_multi_constructor("!", _tagged)
Loader.add_multi_constructor("tag:yaml.org,2002:python", _tagged)


def folder(include_path: str) -> Path:
    """The folder of task files that a config names.

    Errors: StudyError for one that is missing, and for `default` where the harness is not installed.
    """
    if include_path != DEFAULT:
        path = Path(include_path)
        if not path.is_dir():
            raise StudyError(f"config.yaml: lm_eval/include_path: {include_path!r} is missing; expected a folder")
        return path
    package = importlib.util.find_spec("lm_eval")
    if package is None or not package.submodule_search_locations:
        raise StudyError(
            "config.yaml: lm_eval/include_path: 'default' needs the package lm_eval, which is not installed; expected a folder"
        )
    return Path(package.submodule_search_locations[0]) / "tasks"


@dataclass
class TaskFiles:
    """The task files of a folder, read when they are needed."""

    root: Path
    texts: dict[Path, str] = field(default_factory=dict)
    configs: dict[Path, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """List the files."""
        self.files = sorted(
            (path for path in self.root.glob("**/*.yaml") if not set(path.parts) & set(UNLOADED)), key=Path.as_posix
        )

    def config(self, path: Path, including: Sequence[Path] = ()) -> dict[str, Any]:
        """The keys of a file, with those of the files that it includes.

        Errors: StudyError for a file that is missing, outside the folder, includes itself, or is no YAML object.
        """
        if path in including:
            raise StudyError(f"{path}: includes itself; expected files that do not")
        if path not in self.configs:
            content = self._own(path)
            listed = content.pop("include", None) or []
            merged: dict[str, Any] = {}
            for name in listed if isinstance(listed, list) else [listed]:
                included = self.config(self._included(path, name), (*including, path))
                merged |= {key: value for key, value in included.items() if key != "task_list"}
            self.configs[path] = merged | content
        return dict(self.configs[path])

    def _own(self, path: Path) -> dict[str, Any]:
        """The keys that stand in a file itself."""
        try:
            content = yaml.load(self._text(path), Loader=Loader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            location = f"{path}, line {mark.line + 1}" if mark else str(path)
            reason = getattr(error, "problem", None) or first_line(error)
            raise StudyError(f"{location}: not valid YAML: {reason}") from error
        if not isinstance(content, dict):
            raise StudyError(f"{path}: found {shown(content)}, expected keys with values")
        return content

    def _text(self, path: Path) -> str:
        """The text of a file."""
        if path not in self.texts:
            try:
                self.texts[path] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise StudyError(f"{path}: not UTF-8 text (byte {error.start + 1})") from error
            except FileNotFoundError as error:
                raise StudyError(f"{path}: missing; expected a task file that another one includes") from error
        return self.texts[path]

    def _included(self, path: Path, name: Any) -> Path:
        """The file that another one includes, which has to lie in the folder."""
        if not isinstance(name, str):
            raise StudyError(f"{path}: include: found {shown(name)}, expected the name of a file, or a list of names")
        file = Path(os.path.normpath(path.parent / name))
        if not file.resolve().is_relative_to(self.root.resolve()):
            raise StudyError(f"{path}: include: {name!r} is outside the folder {self.root}; allowed: files inside it")
        return file

    def _declared(self, path: Path, seen: frozenset[Path] = frozenset()) -> dict[str, set[str]]:
        """The words of the keys of KEYS in a file and in those that it includes: what it may be found by, without parsing it.

        A folder may hold ten thousand files. Of a file that cannot be read, nothing.
        """
        words: dict[str, set[str]] = {key: set() for key in KEYS}
        try:
            text = self._text(path)
        except (StudyError, OSError):
            return words
        for match in ENTRY.finditer(text):
            words[match["key"]] |= set(WORD.findall(match["value"]))
        for name in words["include"]:
            included = Path(os.path.normpath(path.parent / name))
            if included not in seen:
                words["tag"] |= self._declared(included, seen | {path})["tag"]
        return words

    @functools.cached_property
    def index(self) -> dict[str, list[Path]]:
        """The files that may be or contain a task, group or tag of a name, in the order of their paths."""
        files_of_name: dict[str, list[Path]] = {}
        for path in self.files:
            words = self._declared(path)
            for name in words["task"] | words["group"] | words["tag"]:
                files_of_name.setdefault(name, []).append(path)
        return files_of_name

    def lookup(self, name: str) -> Named:
        """What a name stands for: the task or group of that name, else the tasks with this tag.

        Errors: StudyError for a name that no file has, or only files that cannot be read.
        """
        members: dict[str, Path] = {}
        broken: list[StudyError] = []
        for path in self.index.get(name, ()):
            try:
                config = self.config(path)
            except StudyError as error:
                broken.append(error)
                continue
            if config.get("group", config.get("task")) == name:
                return Named(path, config, ())
            tags = config.get("tag") or []
            if name in (tags if isinstance(tags, list) else [tags]) and isinstance(config.get("task"), str):
                members.setdefault(config["task"], path)
        if members:
            return Named(None, {}, tuple(sorted(members)))
        if broken:
            raise broken[0]
        raise StudyError(
            f"config.yaml: lm_eval/tasks: {name!r} is not known; allowed: a task, group or tag of a YAML file in {self.root}"
        )


@dataclass(frozen=True)
class Named:
    """What a name stands for: the file and keys of a task or group, or the names of the tasks with a tag."""

    path: Path | None
    config: Mapping[str, Any]
    members: tuple[str, ...]


def found(files: TaskFiles, names: Sequence[str]) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]], list[str]]:
    """The tasks behind names of tasks, groups and tags.

    Returns the tasks (name -> {file, config}), the tasks of each group or tag among the names, and a line for each name
    that cannot be read.
    """
    tasks: dict[str, dict[str, Any]] = {}
    groups: dict[str, list[str]] = {}
    lines: list[str] = []
    for name in names:
        try:
            resolved = list(_tasks(files, name, {}, ()))
        except StudyError as error:
            lines.append(str(error))
            continue
        for task, file, config in resolved:
            if task in tasks and tasks[task]["config"] != config:
                lines.append(
                    f"{file}: task {task!r} appears twice with different settings; list it, or one of the groups, once"
                )
            tasks.setdefault(task, {"file": file, "config": config})
        if [task for task, _, _ in resolved] != [name]:
            groups[name] = list(dict.fromkeys(task for task, _, _ in resolved))
    return tasks, groups, lines


def _tasks(
    files: TaskFiles, name: str, changes: Mapping[str, Any], within: Sequence[str]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The tasks of a name with the changes that groups make to them: name, file, keys."""
    if name in within:
        raise StudyError(f"config.yaml: lm_eval/tasks: group {name!r} contains itself; expected groups that do not")
    named = files.lookup(name)
    for member in named.members:
        yield from _tasks(files, member, changes, (*within, name))
    if named.path is None:
        return
    if "group" in named.config:
        yield from _members(files, str(named.path), named.config, changes, (*within, name))
    else:
        yield name, str(named.path), {**named.config, **changes, "task": name}


# Keys of a group's file that say nothing of its tasks.
OF_GROUPS = ("group", "group_alias", "task", "tag", "aggregate_metric_list", "aggregate_metric", "metadata")


def _members(
    files: TaskFiles, location: str, config: Mapping[str, Any], changes: Mapping[str, Any], within: Sequence[str]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The tasks of a group; its other keys, and those beside a member's name, replace keys of the member."""
    listed = config.get("task")
    if not isinstance(listed, list) or not listed:
        raise StudyError(f"{location}: task: found {shown(listed)}, expected a list of tasks and groups")
    shared = {**{key: value for key, value in config.items() if key not in OF_GROUPS}, **changes}
    for entry in listed:
        if isinstance(entry, str):
            yield from _tasks(files, entry, shared, within)
        elif isinstance(entry, Mapping) and isinstance(entry.get("group"), str) and "task" in entry:
            yield from _members(files, location, entry, shared, within)
        elif isinstance(entry, Mapping) and isinstance(entry.get("task", entry.get("group")), str):
            overrides = {key: value for key, value in entry.items() if key not in ("task", "group")}
            yield from _tasks(files, entry.get("task", entry.get("group")), {**shared, **overrides}, within)
        else:
            raise StudyError(
                f"{location}: task: found {shown(entry)}, expected the name of a task or group, alone or as `task`"
            )
