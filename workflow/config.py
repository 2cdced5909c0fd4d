"""Reading a study's config: checked against the schema, defaults filled in, one line for each mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError

from workflow.errors import StudyError

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
    errors = sorted(
        validator.iter_errors(config), key=lambda error: (len(error.absolute_path), str(error.absolute_path))
    )
    if errors:
        raise StudyError(f"config.yaml: {_line(errors[0])}")
    return _filled(config, root, root)


def _line(error: ValidationError) -> str:
    """One line for a schema error: the innermost cause, key path first."""
    while error.context:
        error = _branch(error)
    place = "/".join(map(str, error.absolute_path)) or "top level"
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = sorted(set(error.instance) - set(known))
        return f"{place}: unknown key {unknown[0]!r}; allowed: {', '.join(sorted(known))}"
    if error.validator in ("enum", "const"):
        allowed = error.validator_value if error.validator == "enum" else [error.validator_value]
        return f"{place}: {error.instance!r} is not allowed; allowed: {', '.join(map(str, allowed))}"
    if error.validator == "not":
        return f"{place}: {error.instance!r} is reserved; choose another name"
    if error.validator == "pattern":
        return f"{place}: {error.instance!r} is not allowed; allowed: names that match {error.validator_value}"
    message = error.message if len(error.message) < 200 else error.message[:197] + "..."
    return f"{place}: {message}"


def _branch(error: ValidationError) -> ValidationError:
    """The cause that the writer most likely meant, among those of an `anyOf` or `oneOf`: of a family that of its own source."""
    wrong_source = {
        cause.schema_path[0] for cause in error.context if cause.validator == "const" and list(cause.path) == ["source"]
    }
    meant = [cause for cause in error.context if cause.schema_path[0] not in wrong_source] or list(error.context)
    return max(meant, key=lambda cause: len(cause.absolute_path))


def _resolved(node: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """A schema node with its reference into `$defs` followed; its own keys win."""
    if "$ref" not in node:
        return dict(node)
    target = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _filled(value: Any, node: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """A valid value with the defaults of its schema node filled in, all the way down."""
    node = _resolved(node, root)
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
    known = {key: _resolved(entry, root) for key, entry in node.get("properties", {}).items()}
    defaults = {key: entry["default"] for key, entry in known.items() if "default" in entry}
    rest = node.get("additionalProperties") or {}
    return {key: _filled(entry, known.get(key, rest), root) for key, entry in {**defaults, **value}.items()}
