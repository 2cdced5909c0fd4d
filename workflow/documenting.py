"""Generates pages of `docs/` from the schema, the rules, the columns of tables, and pages of the repository.

Run `python -m workflow.documenting` or `make docs`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from workflow import task
from workflow.data import prompts
from workflow.storage import tables
from workflow.study import config

ROOT = Path(__file__).parents[1]
MADE = "<!-- Made by `make docs`; edit {home} instead. -->\n\n"
INCLUDED = re.compile(r'^include: "(rules/\w+\.smk)"', re.MULTILINE)
RULE = re.compile(r'^(?:rule|checkpoint) (?P<name>\w+):\n    """(?P<text>.*?)"""', re.MULTILINE | re.DOTALL)

Node = Mapping[str, Any]

# --- configuration ---------------------------------------------------------------------------------------------------

LIMITS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
TYPES = {"string": "text", "null": "null"}  # other blocks have the title in the schema
PLURALS = {"integer": "integers", "number": "numbers", "mapping": "mappings"}
HEAD = "| key | type | default | allowed | meaning |\n|---|---|---|---|---|"
SHARED_HEAD = "| key | used by | type | default | allowed | meaning |\n|---|---|---|---|---|---|"
INTRO = """\
A study is a folder with a `config.yaml`. This page lists every key. "Required" means that a key has no default. Where the
column "default" is empty, the meaning says what happens without the key. In the column "type", `name →` stands for a
mapping from names. All mistakes in a config are reported together, before any job starts.

Paths may begin with `~`. Names become part of result paths: lower-case letters, digits and `_ . -`, at most 64. Top-level
keys that hold a single value can also be given on the command line, as in `--config data_root=FOLDER`.
"""


# Folders below workflow/ whose modules a config selects by name.
PLUGINS = {
    "figures": "report/figures",
    "summaries": "report/summaries",
    "imports": "released/readers",
    "indicators": "indicators/measures",
}


class Block(NamedTuple):
    """An object of the schema that has a section of its own: its title, its node."""

    title: str
    node: Node


def configuration() -> str:
    """The configuration page: one section for each block of the schema, one table row for each key."""
    root = config.schema()
    home = MADE.format(home="workflow/schemas/config.schema.yaml")
    overview = [f"| [`{name}`](#{name}) | {_text(config.resolved(node, root))} |" for name, node in _top(root)]
    parts = [f"{home}# Configuration", root["description"], INTRO.rstrip()]
    parts.append("\n".join(["| block or key | meaning |", "|---|---|", *overview]))
    seen: list[Node] = []  # identities of the blocks that have been shown
    for name, node in _top(root):
        parts += _section(Block(name, config.resolved(node, root)), root, "##", seen)
    return "\n\n".join(parts) + "\n"


def _top(root: Node) -> Iterable[tuple[str, Node]]:
    return root["properties"].items()


def _section(block: Block, root: Node, level: str, seen: list[Node]) -> Iterator[str]:
    """Heading, text and tables of a block, then the blocks inside it that no earlier section has shown."""
    seen.append(_keys(block.node, root))
    yield f"{level} {block.title}"
    if text := _text(block.node):
        yield text
    inner = _object(block.node, root)
    branches = [branch for branch in inner.get("oneOf", []) if "properties" in branch]
    if branches:
        yield from _alternatives(block.title, branches, root)
    elif "properties" in inner:
        yield _table(block.title, inner, root)
    else:
        yield _line(block.node, root)
    if block.title in PLUGINS:
        yield _modules(ROOT / "workflow" / PLUGINS[block.title])
    for name, node in _children(inner, branches, root):
        if _keys(node, root) not in seen:
            yield from _section(Block(f"{block.title}: {name}", node), root, "###", seen)


def _modules(folder: Path) -> str:
    """The modules that a config can name, each with the first sentence of its docstring."""
    lines = []
    for path in sorted(folder.glob("[a-z]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(_joined(f"`{path.stem}`", text.split("\n\n")[0]))
    return "\n".join(["| name | what it is |", "|---|---|", *lines])


def _keys(node: Node, root: Node) -> Node:
    """Identity of a block: the keys of its object, or its alternatives."""
    inner = _object(node, root)
    return {name: inner[name] for name in ("properties", "oneOf") if name in inner}


def _object(node: Node, root: Node) -> Node:
    """The object of a block: itself, or the entries of its list or mapping."""
    while "properties" not in node and "oneOf" not in node:
        inner = node.get("items", node.get("additionalProperties"))
        if not isinstance(inner, Mapping):
            break
        node = config.resolved(inner, root)
    return node


def _children(inner: Node, branches: Iterable[Node], root: Node) -> Iterator[tuple[str, Node]]:
    """Keys of a block, or of its alternatives, whose values are objects with keys of their own."""
    for part in (inner, *branches):
        for name, node in part.get("properties", {}).items():
            if _is_block(node_below := config.resolved(node, root), root):
                yield name, node_below


def _is_block(node: Node, root: Node) -> bool:
    """Whether a key holds an object, or a list or mapping of objects, with keys in the schema."""
    inner = _object(node, root)
    return "properties" in inner or any("properties" in branch for branch in inner.get("oneOf", []))


def _alternatives(title: str, branches: list[Node], root: Node) -> Iterator[str]:
    """A table of the keys that alternatives have in common, then one for each alternative with the others.

    The key that chooses an alternative stays with it.
    """
    rows = {branch["title"]: dict(_rows(title, branch, root)) for branch in branches}
    users: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, entries in rows.items():
        for key, row in entries.items():
            users.setdefault((key, row), []).append(name)
    chooses = {key for branch in branches for key in _chooses(branch)}
    shared = {entry: names for entry, names in users.items() if len(names) > 1 and entry[0] not in chooses}
    if shared:
        yield f"### {title}: shared keys"
        lines = [_joined(row[0], _used_by(names, branches), *row[1:]) for (_, row), names in shared.items()]
        yield "\n".join([SHARED_HEAD, *lines])
    for branch in branches:
        yield f"### {title}: {branch['title']}"
        if text := _text(branch):
            yield text
        lines = [_joined(*row) for key, row in rows[branch["title"]].items() if (key, row) not in shared]
        yield "\n".join([HEAD, *lines])


def _used_by(titles: list[str], branches: list[Node]) -> str:
    """Alternatives by the value that selects them if each has one, else by their titles."""
    chosen = {branch["title"]: entry["const"] for branch in branches for entry in _chooses(branch).values()}
    unique = len(set(chosen.values())) == len(branches)
    names = {branch["title"]: f"`{chosen[branch['title']]}`" if unique else branch["title"] for branch in branches}
    others = [name for title, name in names.items() if title not in titles]
    if not others:
        return "all"
    return f"all but {others[0]}" if unique and len(others) == 1 else "; ".join(names[title] for title in titles)


def _chooses(branch: Node) -> dict[str, Node]:
    """The keys of an alternative that have a single allowed value."""
    return {key: entry for key, entry in branch["properties"].items() if "const" in entry}


def _table(title: str, node: Node, root: Node) -> str:
    return "\n".join([HEAD, *(_joined(*row) for _, row in _rows(title, node, root))])


def _rows(title: str, node: Node, root: Node) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Table rows of an object's keys: key, type, default, allowed values, meaning."""
    required = set(node.get("required", ()))
    for name, entry in node["properties"].items():
        found = config.resolved(entry, root)
        text = _text(found)
        if _is_block(found, root):
            text = f"{text} See [{name}](#{_slug(_home(title, name, found, root))}).".strip()
        yield name, (f"`{name}`", _type(found, root), _default(name, found, required), _allowed(found, root), text)


def _home(title: str, name: str, node: Node, root: Node) -> str:
    """Title of the section that shows a block: the first one in the schema."""
    for top, entry in _top(root):
        inner = _object(config.resolved(entry, root), root)
        branches = [branch for branch in inner.get("oneOf", []) if "properties" in branch]
        if any(_keys(child, root) == _keys(node, root) for _, child in _children(inner, branches, root)):
            return f"{top}: {name}"
    return f"{title}: {name}"


def _slug(title: str) -> str:
    """The anchor of a heading, as MkDocs and GitHub make it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _line(node: Node, root: Node) -> str:
    """Type, default and allowed values of a key that is no block, as a sentence."""
    facts = {"Type": _type(node, root), "default": _default("", node, set()), "allowed": _allowed(node, root)}
    return "; ".join(f"{name}: {value}" for name, value in facts.items() if value) + "."


def _joined(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _text(node: Node) -> str:
    return str(node.get("description", "")).replace("->", "→")


def _type(node: Node, root: Node) -> str:
    """Type of a key's value."""
    node = config.resolved(node, root)
    alternatives = node.get("anyOf") or [branch for branch in node.get("oneOf", []) if "properties" not in branch]
    if alternatives:
        parts = list(dict.fromkeys(_type(part, root) for part in alternatives))
        return (", or " if any(" " in part for part in parts) else " or ").join(parts)
    if "const" in node or "enum" in node:
        return _of_values([node["const"]] if "const" in node else node["enum"])
    if node.get("type") == "array":
        inner = _type(node["items"], root).split(" or ")
        return "list of " + " or ".join(PLURALS.get(kind, kind) for kind in inner)
    if isinstance(node.get("additionalProperties"), Mapping):
        return f"name → {_type(node['additionalProperties'], root)}"
    kinds = node.get("type", "object")
    names = [TYPES.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != "null"]
    return "path" if node.get("format") == "path" else "mapping" if names == ["object"] else " or ".join(names)


def _of_values(values: Iterable[Any]) -> str:
    return " or ".join(dict.fromkeys("text" if isinstance(value, str) else type(value).__name__ for value in values))


def _default(name: str, node: Node, required: set[str]) -> str:
    """Default of a key; empty if its description states it."""
    if name in required or "const" in node:
        return "required"
    if node.get("default") in (None, {}, []):
        return ""
    return f"`{_shown(node['default'])}`"


def _shown(value: Any) -> str:
    """A value in YAML, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(entry)}" for key, entry in value.items()) + "}"
    return str(value)


def _allowed(node: Node, root: Node) -> str:
    """Allowed values of a key beyond its type; for lists and mappings those of their entries."""
    node = config.resolved(node, root)
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    parts = [text.format(node[rule]) for rule, text in LIMITS.items() if rule in node]
    inner = [node.get("items"), node.get("additionalProperties"), *node.get("anyOf", []), *node.get("oneOf", [])]
    entries = [_allowed(part, root) for part in inner if isinstance(part, Mapping) and "properties" not in part]
    return ", ".join(dict.fromkeys([*parts, *filter(None, entries)]))


# --- rules, tables, tasks, pages of the repository --------------------------------------------------------------------------


TASKS = """\
Tasks to fine-tune on or to test on. These come with Tunecast; a study can have [tasks of its own](adding.md#a-dataset). Rows come
from the dataset on the hub, or from `data_root`. Licences are copied from the dataset cards.

The kind of a task gives its prompts and its `method`, which says how the model answers:

| kind | method | answer | primary metric |
|---|---|---|---|
| `inference`, `paraphrase` | `label` | the label word with the highest log-probability | accuracy |
| `choice` | `rank` | the answer option with the highest log-probability | accuracy |
| `answer` | `answer` | a short generated answer to a question | exact match |
| `summary` | `generate` | a generated summary | ROUGE-L |
| `question` | `generate` | a generated *question*, for a context and its answer | ROUGE-L |
| `messages` | | conversations, to fine-tune on only | |

Names that end in `_context` are questions with a passage. Those that end in `_ood` have rows of another domain. The tasks
`mini_…` belong to a generated world, in which the truth is known: `mini_facts` asks for facts that the pre-training text
states, `mini_inference` needs a skill that few texts show, and `mini_control` has random labels, so that no model can learn
it.
"""


FORMATS = """\
## Prompt formats

`default`, `io` and `instruct` are the formats of Sun and Dredze (arXiv 2408.06663, Table 5). `chat` puts the prompt of
`instruct` into the checkpoint's own chat template. `lm_eval` is the format of tasks from lm-evaluation-harness, which bring
their own prompts. Names in braces are fields of a row. The answer follows the prompt.
"""

AUDIT = """\
The audit looks for what makes scores misleading. Each finding is in `results/audit.parquet` with its evidence and a severity:
an error makes a number wrong, a warning weakens what may be concluded from it, a note is worth knowing. Warnings and errors
are shown beside the findings and recommendations that they affect. A study can have [checks of its own](adding.md).
"""


def rules() -> str:
    """The page of rules: each rule with its docstring, in the order of the Snakefile."""
    blocks = []
    for name in INCLUDED.findall((ROOT / "Snakefile").read_text(encoding="utf-8")):
        text = (ROOT / name).read_text(encoding="utf-8")
        items = [f"| `{rule['name']}` | {' '.join(rule['text'].split())} |" for rule in RULE.finditer(text)]
        if items:
            about = text.split('"""')[1]
            blocks.append(f"## {name}\n\n{about}\n\n| rule | what it does |\n|---|---|\n" + "\n".join(items))
    intro = "`snakemake --list` prints the same. Each rule calls the script of its name in `workflow/scripts/`.\n\n"
    return MADE.format(home="the docstrings in rules/") + "# Rules\n\n" + intro + "\n\n".join(blocks) + "\n"


def columns() -> str:
    """The page of tables: their columns and descriptions."""
    schemas = {name: value for name, value in vars(tables).items() if isinstance(value, pa.Schema)}
    blocks = []
    for name, schema in schemas.items():
        items = [f"| `{field.name}` | {field.type} | {field.metadata[b'description'].decode()} |" for field in schema]
        title = name.lower().replace("_", " ")
        blocks.append(f"## {title}\n\n| column | type | meaning |\n|---|---|---|\n" + "\n".join(items))
    intro = (
        "Columns of the Parquet files below `results/`; the files describe them too, in their metadata. Files of a\n"
        "hive-partitioned folder lack the columns that are keys of their path. The gathered tables have them.\n\n"
    )
    return MADE.format(home="workflow/storage/tables.py") + "# Tables\n\n" + intro + "\n\n".join(blocks) + "\n"


def task_list() -> str:
    """The page of tasks that come with Tunecast: kind, source of rows, splits, licence."""
    lines = []
    for name in task.names():
        one = task.load(name)
        source = "generated mini world" if one.hub is None else " ".join(filter(None, (one.hub, one.subset)))
        lines.append(
            _joined(f"`{name}`", one.kind, source, _split(one, one.train), _split(one, one.test), one.licence or "")
        )
    head = "| task | kind | dataset | training split | test split | licence |\n|---|---|---|---|---|---|"
    return (
        MADE.format(home="workflow/tasks/")
        + f"# Tasks\n\n{TASKS}\n"
        + "\n".join([head, *lines, "", FORMATS, *_formats()])
        + "\n"
    )


def _formats() -> Iterator[str]:
    """The prompt formats with their templates for a task of each kind that has one."""
    yield "| kind | format | prompt |\n|---|---|---|"
    for kind in ("inference", "paraphrase", "choice", "answer", "summary", "question"):
        for name in ("default", "io", "instruct"):
            yield _joined(kind, f"`{name}`", f"`{json.dumps(prompts.FORMATS[name][kind], ensure_ascii=False)}`")


def checks() -> str:
    """The page of the audit: each check with the first line of its docstring."""
    return (
        MADE.format(home="workflow/audit/checks/") + f"# Audit\n\n{AUDIT}\n{_modules(ROOT / 'workflow/audit/checks')}\n"
    )


def _split(one: task.Task, split: str | None) -> str:
    """A split with its number of rows if it is known."""
    rows = one.sizes.get(split or "")
    return f"{split} ({rows:,})" if rows else split or "none"


def copied(name: str) -> str:
    """A page of the repository's root as a page of the site."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return MADE.format(home=name) + text.replace("](docs/", "](")


PAGES = {
    "configuration.md": configuration,
    "rules.md": rules,
    "tables.md": columns,
    "tasks.md": task_list,
    "audit.md": checks,
    "contributing.md": lambda: copied("CONTRIBUTING.md"),
    "changelog.md": lambda: copied("CHANGELOG.md"),
}

if __name__ == "__main__":
    for page, made in PAGES.items():
        (ROOT / "docs" / page).write_text(made(), encoding="utf-8")
