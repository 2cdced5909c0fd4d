"""Reading a study's config: checked against the schema, defaults filled in, one line for each mistake."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError

from workflow.errors import StudyError, shown

SCHEMA_PATH = Path(__file__).parent / "schemas" / "config.schema.yaml"


def schema() -> dict[str, Any]:
    """The config's JSON schema, as a dict."""
    return yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))


def validated(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every default filled in.

    Errors: StudyError whose one line names the key, what was found and what is allowed.
    """
    root = schema()
    validator = Draft202012Validator(root)
    errors = sorted(validator.iter_errors(config), key=_order)
    if errors:
        raise StudyError(f"config.yaml: {_line(errors[0])}")
    return _filled(config, root, root)


def recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of these settings, every default of the schema filled in."""
    root = schema()
    return _filled(settings, root["properties"]["recipes"]["additionalProperties"], root)


def _order(error: ValidationError) -> tuple[bool, int, str]:
    """Which error to report first: a plain one before one of alternatives, which may only follow from it; outer keys first."""
    return bool(error.context), len(error.absolute_path), str(error.absolute_path)


def _line(error: ValidationError) -> str:
    """One line for a schema error: the innermost cause, key path first, then what was found and what is allowed."""
    while error.context:
        error = _branch(error)
    place = "/".join(map(str, error.absolute_path)) or "top level"
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = sorted(map(str, set(error.instance) - set(known)))
        return f"{place}: unknown key {unknown[0]!r}; allowed: {', '.join(sorted(known))}"
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return f"{place}: key {missing!r} is missing; required: {', '.join(error.validator_value)}"
    if error.validator == "not":
        return f"{place}: {error.instance!r} is reserved; choose another name"
    siblings = error.parent.context if error.parent else [error]
    allowed = dict.fromkeys(_allowed(cause) for cause in siblings if cause.absolute_path == error.absolute_path)
    return f"{place}: {shown(error.instance)} is not allowed; allowed: {' or '.join(allowed)}"


TYPES = {
    "integer": "a whole number",
    "number": "a number, such as 1.0e-3 (1e-3 is text in YAML)",
    "string": "text",
    "array": "a list",
    "boolean": "true or false",
    "object": "keys with values",
    "null": "null",
}


def _allowed(error: ValidationError) -> str:
    """What a broken rule of the schema allows."""
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
        "minProperties": lambda: "at least one entry",
        "minLength": lambda: "text that is not empty",
        "uniqueItems": lambda: "each entry once",
    }
    return texts[rule]()


def _branch(error: ValidationError) -> ValidationError:
    """The cause that the writer most likely meant, among those of an `anyOf` or `oneOf`.

    Of a family that of its own source, of an indicator that of its own measure; of a list that about its entries, not that
    it should have been a word.
    """
    other_sort = {
        cause.schema_path[0]
        for cause in error.context
        if cause.validator == "const" and list(cause.path) in (["source"], ["measure"])
    }
    meant = [cause for cause in error.context if cause.schema_path[0] not in other_sort] or list(error.context)
    return max(meant, key=lambda cause: (len(cause.absolute_path), cause.validator not in ("const", "type")))


def resolved(node: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """A schema node with its reference into `$defs` followed; its own keys win."""
    if "$ref" not in node:
        return dict(node)
    target = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _filled(value: Any, node: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """A valid value with the defaults of its schema node filled in, all the way down; `~` in a path is the home folder."""
    node = resolved(node, root)
    if isinstance(value, str) and node.get("format") == "path":
        return os.path.expanduser(value)
    if isinstance(value, Mapping):
        for branch in node.get("oneOf", []):
            if Draft202012Validator({**branch, "$defs": root["$defs"]}).is_valid(value):
                node = branch
        return _filled_object(value, node, root)
    if isinstance(value, list) and "items" in node:
        return [_filled(element, node["items"], root) for element in value]
    return value


def _filled_object(value: Mapping[str, Any], node: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """An object with defaults for the properties it leaves out."""
    known = {key: resolved(entry, root) for key, entry in node.get("properties", {}).items()}
    defaults = {key: entry["default"] for key, entry in known.items() if "default" in entry}
    rest = node.get("additionalProperties") or {}
    return {key: _filled(entry, known.get(key, rest), root) for key, entry in {**defaults, **value}.items()}
