"""Reads a study's config: validates it against the schema and fills in defaults. Each mistake gives one line."""

from __future__ import annotations

import copy
import difflib
import functools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators

from workflow.errors import MistakesError, shown

SCHEMA_PATH = Path(__file__).parents[1] / "schemas" / "config.schema.yaml"
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where PyYAML was built with it
NEAR = 0.6  # similarity above which a name counts as misspelt
Place = tuple[str | int, ...]  # keys and list indices that lead to a value of the config


def _matches(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    """Match a `pattern` as its authors mean it: `$` matches only the end of the text, not before a final line break."""
    if isinstance(instance, str) and not re.search(pattern.replace("$", r"\Z"), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


# An integer must be a Python int: a count of 8.0 would fail later.
Validator = validators.extend(
    Draft202012Validator,
    {"pattern": _matches},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


@functools.cache
def schema() -> dict[str, Any]:
    """The config's JSON schema, as a dict."""
    return yaml.load(SCHEMA_PATH.read_text(encoding="utf-8"), Loader=Loader)


def validated(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with all defaults filled in.

    Errors: MistakesError with one line for each mistake, which names the key, what was found and what is allowed.
    """
    lines = [line for _, line in mistakes(config)]
    if lines:
        raise MistakesError(lines)
    root = schema()
    return _filled(config, root, root)


def mistakes(config: Mapping[str, Any]) -> list[tuple[Place, str]]:
    """Mistakes of a config by the schema: the key path of each, and a line about it."""
    errors = Validator(schema()).iter_errors(config)
    causes = sorted(
        (cause for error in errors for cause in _causes(error)), key=lambda cause: [*map(str, cause.absolute_path)]
    )
    lines = [line for cause in causes for line in _lines(cause)]
    return list(dict.fromkeys([*lines, *_infinite(config)]))


def without(config: Mapping[str, Any], places: Iterable[Place]) -> dict[str, Any] | None:
    """A valid config made by removing the values at some key paths, so that the rest can be checked; None if impossible.

    places: those of all mistakes.
    """
    root = schema()
    if not (at := set(places)):
        return _filled(config, root, root)
    left = copy.deepcopy(dict(config))
    for key_path in sorted(at, key=lambda key_path: (len(key_path), str(key_path)), reverse=True):
        value: Any = left
        for key in key_path[:-1]:
            value = value[key]
        if not key_path:
            return None
        del value[key_path[-1]]
    return None if mistakes(left) else _filled(left, root, root)


def check_keys(path: Path) -> None:
    """Check that a YAML or JSON file has each key once. Otherwise the last of two equal keys would win silently.

    Errors: MistakesError naming file, line and key.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return  # the function that reads the file reports it
    lines = [
        f"{os.path.relpath(path)}, line {key.start_mark.line + 1}: key {key.value!r} appears twice, first in line "
        f"{first.start_mark.line + 1}; expected each key once"
        for first, key in _repeated(node, set())
    ]
    if lines:
        raise MistakesError(lines)


def _repeated(node: yaml.Node | None, seen: set[int]) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Repeated keys in a YAML node, each after the first. What an alias repeats counts once."""
    if node is None or id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    keys: dict[tuple[str, str], yaml.Node] = {}
    for entry in node.value:
        key, value = entry if isinstance(entry, tuple) else (None, entry)
        if isinstance(key, yaml.ScalarNode):
            first = keys.setdefault((key.tag, key.value), key)
            if first is not key:
                yield first, key
        yield from _repeated(value, seen)


def recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with these settings and all defaults of the schema."""
    root = schema()
    return _filled(settings, root["properties"]["recipes"]["additionalProperties"], root)


def _causes(error: ValidationError) -> Iterator[ValidationError]:
    """The schema errors behind an error: the error itself, or, for alternatives, those of the alternative that was meant."""
    meant = _branch(error) if error.context else error
    if meant is error:
        # A value that fits several alternatives lacks a key or is no object, which has its own line.
        yield from () if error.validator == "oneOf" else (error,)
    elif not _other_sort(meant):  # an unknown source or measure has its own line
        for cause in error.context:
            if cause.schema_path[0] == meant.schema_path[0] and (
                cause is meant or cause.validator not in ("const", "type")
            ):
                yield from _causes(cause)


def _lines(error: ValidationError) -> Iterator[tuple[Place, str]]:
    """Key path and line of each mistake that a schema error is about."""
    key_path = tuple(error.absolute_path)
    text = f"config.yaml: {'/'.join(map(str, key_path)) or 'top level'}"
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        for key in sorted(set(error.instance) - set(known), key=str):
            yield (*key_path, key), f"{text}: unknown key {key!r}; allowed: {', '.join(known)}{meant(key, known)}"
    elif error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                yield key_path, f"{text}: key {key!r} is missing; required: {', '.join(error.validator_value)}"
    else:
        named = (error.instance,) if "propertyNames" in error.absolute_schema_path else ()
        yield (*key_path, *named), f"{text}: {_refused(error)}"


def _refused(error: ValidationError) -> str:
    """The value or name that is refused, and what is allowed."""
    if error.validator == "not":
        return f"{error.instance!r} is reserved; choose another name"
    siblings = error.parent.context if error.parent else [error]
    same_path = [cause for cause in siblings if cause.absolute_path == error.absolute_path]
    words = [word for cause in same_path if cause.validator == "enum" for word in cause.validator_value]
    allowed = " or ".join(dict.fromkeys(map(allowed_by, same_path)))
    return f"{shown(error.instance)} is not allowed; allowed: {allowed}{meant(error.instance, words)}"


def meant(value: object, allowed: Iterable[object]) -> str:
    """End of a line about an unknown name: the allowed name that it is most similar to, if there is one."""
    words = {str(word).casefold(): str(word) for word in allowed}
    near = difflib.get_close_matches(str(value).casefold(), words, n=1, cutoff=NEAR)
    return f"; did you mean {words[near[0]]!r}?" if near else ""


def unknown(key_path: str, values: Iterable[object], allowed: Iterable[object]) -> Iterator[str]:
    """A line for each name at a key path that is not allowed there."""
    legal = sorted(set(allowed), key=lambda name: (isinstance(name, str), name))
    for name in values:
        if name not in legal:
            listed = ", ".join(map(str, legal)) or "none"
            yield f"config.yaml: {key_path}: {name!r} is not known; allowed: {listed}{meant(name, legal)}"


def _infinite(value: Any, path: Place = ()) -> Iterator[tuple[Place, str]]:
    """Numbers of a config that are not finite, which the schema's limits do not exclude."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path, f"config.yaml: {'/'.join(map(str, path))}: {value} is not allowed; allowed: a finite number"
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from _infinite(entry, (*path, key))


TYPES = {
    "integer": "a whole number (8.0 is not one)",
    "number": "a number, such as 1.0e-3 (1e-3 is text in YAML)",
    "string": "text",
    "array": "a list",
    "boolean": "true or false",
    "object": "keys with values",
    "null": "null",
}


def allowed_by(error: ValidationError) -> str:
    """What a violated rule of the schema allows."""
    rule, limit = error.validator, error.validator_value
    texts = {
        "type": lambda: " or ".join(TYPES[name] for name in ([limit] if isinstance(limit, str) else limit)),
        "enum": lambda: ", ".join(map(str, limit)),
        "const": lambda: str(limit),
        "pattern": lambda: f"names that match {limit}",
        "minimum": lambda: f"{limit} or more",
        "maximum": lambda: f"{limit} or less",
        "exclusiveMinimum": lambda: f"more than {limit}",
        "exclusiveMaximum": lambda: f"less than {limit}",
        "minItems": lambda: "at least one entry" if limit == 1 else f"at least {limit} entries",
        "maxItems": lambda: f"at most {limit} entries",
        "minProperties": lambda: "at least one entry" if limit == 1 else f"at least {limit} entries",
        "minLength": lambda: "text that is not empty",
        "maxLength": lambda: f"at most {limit} characters",
        "uniqueItems": lambda: "each entry once",
    }
    return texts[rule]()


def _branch(error: ValidationError) -> ValidationError:
    """The most likely cause among those of an `anyOf` or `oneOf`.

    For a family: that of its source; for an indicator: that of its measure; for a list: that of its entries, not that it
    should have been a word.
    """
    other_sort = {cause.schema_path[0] for cause in error.context if _other_sort(cause)}
    meant = [cause for cause in error.context if cause.schema_path[0] not in other_sort] or list(error.context)
    return max(meant, key=lambda cause: (len(cause.absolute_path), cause.validator not in ("const", "type")))


def _other_sort(cause: ValidationError) -> bool:
    """Whether an alternative is for families of another source or indicators of another measure."""
    return cause.validator == "const" and list(cause.path) in (["source"], ["measure"])


def resolved(node: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """A schema node with its reference into `$defs` resolved; its own keys take precedence."""
    if "$ref" not in node:
        return dict(node)
    target = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _filled(value: Any, node: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """A valid value with the defaults of its schema node, at all levels. `~` in a path becomes the home folder."""
    node = resolved(node, root)
    if isinstance(value, str) and node.get("format") == "path":
        return os.path.expanduser(value)
    if isinstance(value, Mapping):
        for branch in node.get("oneOf", []):
            if Validator({**branch, "$defs": root["$defs"]}).is_valid(value):
                node = branch
        return _filled_object(value, node, root)
    if isinstance(value, list) and "items" in node:
        return [_filled(element, node["items"], root) for element in value]
    return value


def _filled_object(value: Mapping[str, Any], node: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """An object with the defaults of the properties that it lacks."""
    known = {key: resolved(entry, root) for key, entry in node.get("properties", {}).items()}
    defaults = {key: entry["default"] for key, entry in known.items() if "default" in entry}
    rest = node.get("additionalProperties") or {}
    return {key: _filled(entry, known.get(key, rest), root) for key, entry in {**defaults, **value}.items()}
