"""Pages of `docs/` that state facts which have their home elsewhere: the schema, the rules, the columns of tables.

`python -m workflow.documenting` (`make docs`) writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from workflow.storage import tables
from workflow.study import config

ROOT = Path(__file__).parents[1]
MADE = "<!-- Made by `make docs`; edit {home} instead. -->\n\n"
INCLUDED = re.compile(r'^include: "rules/(\w+)\.smk"', re.MULTILINE)
RULE = re.compile(r'^(?:rule|checkpoint) (?P<name>\w+):\n    """(?P<text>.*?)"""', re.MULTILINE | re.DOTALL)
LIMITS = {
    "minimum": "{} or more",
    "maximum": "{} or less",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
}


def configuration() -> str:
    """Every key of a study's config, from the schema: what it is, what it allows, what it is when left out."""
    root = config.schema()
    lines = [*_keys(root["properties"], root, ())]
    home = MADE.format(home="workflow/schemas/config.schema.yaml")
    return f"{home}# Configuration\n\n{root['description']}\n\n" + "\n".join(lines) + "\n"


def _keys(properties: Mapping[str, Any], root: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[str]:
    """A list item for each key and, indented below it, for each key inside of it."""
    for name, node in properties.items():
        found = config.resolved(node, root)
        if len(place) == 0:
            yield f"\n## {name}\n"
        facts = "; ".join(_facts(found))
        text = f"**`{'/'.join((*place, name))}`** {found.get('description', '')}".strip()
        yield f"{_indent(place)}- {text}{f' *({facts})*' if facts else ''}"
        yield from _inside(found, root, (*place, name))


def _inside(node: Mapping[str, Any], root: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[str]:
    """The keys inside of a key: its own, those of what it lists or names, those of its alternatives."""
    if "const" not in node:
        yield from _keys(node.get("properties", {}), root, place)
    for branch in node.get("oneOf", []):
        if "properties" in branch:
            yield f"{_indent(place)}- of {branch['title']}:"
            yield from _keys(branch["properties"], root, place)
    for inner, label in ((node.get("items"), "[]"), (node.get("additionalProperties"), "<name>")):
        if isinstance(inner, Mapping):
            yield from _inside(config.resolved(inner, root), root, (*place, label))


def _indent(place: tuple[str, ...]) -> str:
    """The indent of a key's item: two spaces for each key that it is inside of."""
    return "  " * sum(part not in ("[]", "<name>") for part in place)


def _facts(node: Mapping[str, Any]) -> Iterator[str]:
    """What a key allows, and what it is when left out."""
    if "enum" in node:
        yield "one of " + ", ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        yield f"`{node['const']}`"
    yield from (text.format(node[rule]) for rule, text in LIMITS.items() if rule in node)
    if "default" in node and node["default"] not in ({}, [], None):
        yield f"default `{node['default']}`"


def rules() -> str:
    """Every rule with its docstring, in the order of the files."""
    blocks = []
    for name in INCLUDED.findall((ROOT / "Snakefile").read_text(encoding="utf-8")):
        text = (ROOT / "rules" / f"{name}.smk").read_text(encoding="utf-8")
        about = text.split('"""')[1]
        items = [f"- **`{rule['name']}`** {' '.join(rule['text'].split())}" for rule in RULE.finditer(text)]
        blocks.append(f"## rules/{name}.smk\n\n{about}\n\n" + "\n".join(items))
    return MADE.format(home="the docstrings in rules/") + "# Rules\n\n" + "\n\n".join(blocks) + "\n"


def columns() -> str:
    """Every table with its columns, as the Parquet files describe them themselves."""
    schemas = {name: value for name, value in vars(tables).items() if isinstance(value, pa.Schema)}
    blocks = []
    for name, schema in schemas.items():
        items = [f"| `{field.name}` | {field.type} | {field.metadata[b'description'].decode()} |" for field in schema]
        blocks.append(f"## {name.lower().replace('_', ' ')}\n\n| column | type | |\n|---|---|---|\n" + "\n".join(items))
    intro = "Parts below `results/` lack the columns that are keys of their path; gathered tables have them.\n\n"
    return MADE.format(home="workflow/storage/tables.py") + "# Tables\n\n" + intro + "\n\n".join(blocks) + "\n"


PAGES = {"configuration.md": configuration, "rules.md": rules, "tables.md": columns}

if __name__ == "__main__":
    for page, made in PAGES.items():
        (ROOT / "docs" / page).write_text(made(), encoding="utf-8")
