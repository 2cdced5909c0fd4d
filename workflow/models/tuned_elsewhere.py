"""Models that were fine-tuned elsewhere: full weights or LoRA adapters, checked and laid out like those that a study makes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workflow.errors import StudyError, shown
from workflow.models import checkpoints, revisions
from workflow.settings import Base, Family
from workflow.storage import hub
from workflow.storage.files import dumped, json_object, whole

WEIGHTS = "adapter_model.safetensors"
FILES = (checkpoints.ADAPTER, WEIGHTS)  # of adapters; their tokenizer is that of the base
LINEAGE = "lineage.json"
LIBRARY = re.compile(r"transformers(\.\w+)*")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Initialisations that leave the base's own weights as they are; the others change them when adapters are added or loaded.
INITIALISATIONS = (True, False, None, "gaussian", "orthogonal")
FACTOR = re.compile(r"lora_(embedding_)?[AB](\.\w+)?")  # one of the two factors of a pair of adapters
SAME_SIZE = ("model_type", "hidden_size", "num_hidden_layers", "n_embd", "n_layer")  # keys of config.json


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds adapters."""
    return (folder / checkpoints.ADAPTER).is_file()


def files(folder: Path) -> list[Path]:
    """Return the files of a tuned model that are read.

    Errors: StudyError as `checkpoints.checkpoint_files`.
    """
    if not is_adapter(folder):
        return [Path(path) for path in checkpoints.checkpoint_files(str(folder))]
    check(folder)
    return [folder / name for name in FILES]


def check(folder: Path) -> None:
    """Check that a folder holds LoRA adapters or a complete checkpoint, as safetensors and without code.

    Errors: StudyError naming the folder or file and the fault.
    """
    if not folder.is_dir() or not is_adapter(folder):
        checkpoints.check(folder)
        return
    for name in FILES:
        path = folder / name
        if (
            path.is_symlink()
            and not path.resolve().is_relative_to(folder.resolve())
            and "blobs" not in path.resolve().parts
        ):
            raise StudyError(f"{path}: a link that leaves the folder of the adapters; expected the file itself")
    check_settings(folder / checkpoints.ADAPTER)
    if not (folder / WEIGHTS).is_file():
        pickled = [path.name for path in folder.iterdir() if path.match("adapter_model.*")]
        mistake = f"found {', '.join(pickled)}; convert to safetensors" if pickled else "found none"
        raise StudyError(f"{folder}: weights of the adapters are missing; expected {WEIGHTS}, {mistake}")
    checkpoints.check_header(folder / WEIGHTS)


def check_settings(path: Path) -> dict[str, Any]:
    """Return the settings of adapters.

    Errors: StudyError for settings that ask for code, for another method than LoRA, or for a changed base.
    """
    settings = json_object(path)
    mapping = settings.get("auto_mapping") or {}
    library = str(mapping.get("parent_library", "transformers")) if isinstance(mapping, dict) else ""
    cases: tuple[tuple[str, Any, bool, str], ...] = (
        ("peft_type", settings.get("peft_type"), settings.get("peft_type") == "LORA", "LORA"),
        ("task_type", settings.get("task_type"), settings.get("task_type") in ("CAUSAL_LM", None), "CAUSAL_LM"),
        (
            "auto_mapping",
            library,
            bool(LIBRARY.fullmatch(library)),
            "a module of transformers; other code is never run",
        ),
        ("megatron_config", settings.get("megatron_config"), not settings.get("megatron_config"), "null"),
        ("layer_replication", settings.get("layer_replication"), not settings.get("layer_replication"), "null"),
        (
            "init_lora_weights",
            settings.get("init_lora_weights"),
            settings.get("init_lora_weights") in INITIALISATIONS,
            "true, false, gaussian or orthogonal, which leave the base as it is; convert the adapters",
        ),
    )
    for key, value, fits, allowed in cases:
        if not fits:
            raise StudyError(f"{path}: {key!r} is {shown(value)}; allowed: {allowed}")
    rank = settings.get("r")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise StudyError(f"{path}: 'r' is {shown(rank)}; expected the rank of the adapters")
    return settings


def named_bases(settings: Mapping[str, Any], families: Mapping[str, Family]) -> list[tuple[str, int]]:
    """Return the bases of a study that the settings of adapters name: family and step of each.

    A base on the hub is named by repository and revision, one in a folder by the last part of its path, since the part
    before it belongs to another machine.
    """
    name, revision = str(settings.get("base_model_name_or_path") or ""), settings.get("revision")
    bases = []
    for family, block in families.items():
        if block["source"] == "hub":
            bases += [(family, step) for step in _hub_steps(family, block, name, revision)]
            continue
        for step in checkpoints.steps(family, block):
            folder = checkpoints.place(family, block, step)
            if _ends_alike(Path(name), folder):
                bases.append((family, step))
    exact = [base for base in bases if _is_same(name, families[base[0]], *base)]
    return exact or bases


def _hub_steps(name: str, family: Family, repo: str, revision: Any) -> list[int]:
    """Return the steps of a hub family that a repository and a revision mean."""
    if "repos" in family:
        return [
            entry["step"]
            for entry in family["repos"]
            if entry["repo"] == repo and revision in (None, entry.get("revision", "main"))
        ]
    if family["repo"] != repo:
        return []
    if revision in (None, "main"):
        return [family["main_step"]] if "main_step" in family else []
    step = revisions.numbered(revisions.expression(name, family["pattern"]), [str(revision)]).values()
    return [one for one in step if one in checkpoints.steps(name, family)]


def _ends_alike(named: Path, folder: Path) -> bool:
    """Return whether a path as adapters name it has the same last part as a folder, of trained families the last two."""
    parts = 2 if folder.parent.name.startswith("family=") else 1
    return bool(named.name) and named.parts[-parts:] == folder.parts[-parts:]


def _is_same(named: str, family: Family, name: str, step: int) -> bool:
    """Return whether a path is that of a base's folder on this machine."""
    if family["source"] == "hub":
        return False
    folder = checkpoints.place(name, family, step)
    return bool(named) and Path(named).exists() and folder.exists() and os.path.samefile(named, folder)


def check_base(
    model_name: str, settings: Mapping[str, Any], base: tuple[str, int], families: Mapping[str, Family]
) -> None:
    """Raise StudyError if adapters name another base than the one that they are tied to, as far as the name tells."""
    named, tied = str(settings.get("base_model_name_or_path") or ""), families[base[0]]
    stated_bases = named_bases(settings, families)
    if stated_bases and base not in stated_bases:
        others = ", ".join(f"step {step} of {family}" for family, step in stated_bases)
        raise StudyError(
            f"{model_name}: was tuned from {shown(named)}, which is {others}, not step {base[1]} of {base[0]}"
        )
    repos = {tied["repo"]} if "repo" in tied else {entry["repo"] for entry in tied.get("repos", ())}
    if repos and named not in repos and REPOSITORY.fullmatch(named) and not Path(named).exists():
        raise StudyError(f"{model_name}: was tuned from {shown(named)}, but {base[0]} is {', '.join(sorted(repos))}")
    if repos and named in repos and not stated_bases:
        revision = shown(settings.get("revision"))
        raise StudyError(
            f"{model_name}: was tuned from revision {revision} of {named}, which is not step {base[1]} of {base[0]}"
        )


def pin(model_name: str, repo: str, revision: str | None) -> dict[str, Any]:
    """Return what the hub has for a tuned model (`hub.pin`): commit and files.

    Errors: StudyError if it holds neither adapters nor a complete checkpoint as safetensors.
    """

    def wanted(names: list[str]) -> list[str]:
        top_level = [name for name in names if "/" not in name]
        if checkpoints.ADAPTER not in top_level:
            return checkpoints.needed(f"{repo} at {revision or 'main'}", top_level)
        if WEIGHTS not in top_level:
            raise StudyError(
                f"{model_name}: {repo} at {revision or 'main'}: {WEIGHTS} is missing; convert to safetensors"
            )
        return list(FILES)

    with hub.errors(f"{model_name}: {repo}"):
        return hub.pin(repo, "model", revision, wanted)


def take(folder: Path, base: Base, output: Path, lineage: Mapping[str, Any]) -> list[Path]:
    """Lay out a tuned model in `output`, completely or not at all, and return the files that it has been made of.

    The files are linked where the file system can, since full weights are large. lineage: what is known of the model.
    Errors: StudyError if it cannot be loaded safely, or its size is not that of the base.
    """
    names = files(folder)
    if not is_adapter(folder):
        _check_size(folder, Path(base["path"]))
    with whole(output) as unfinished:
        unfinished.mkdir(parents=True, exist_ok=True)
        for path in names:
            _link(path.resolve(), unfinished / path.name)
        method = "lora" if is_adapter(folder) else "full"
        (unfinished / LINEAGE).write_text(
            dumped({**lineage, "method": method, "base": checkpoints.identity(base)}), encoding="utf-8"
        )
    return names


def _check_size(folder: Path, base: Path) -> None:
    """Raise StudyError unless a tuned model has the architecture and size of its base."""
    config, other = (json_object(path / "config.json") for path in (folder, base))
    for key in SAME_SIZE:
        if config.get(key) != other.get(key):
            raise StudyError(
                f"{folder / 'config.json'}: {key!r} is {shown(config.get(key))}, that of its base {shown(other.get(key))}; "
                "expected a model that was tuned from this base"
            )


def _link(source: Path, target: Path) -> None:
    """Make a file a second name of another, or a copy of it on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def remarks(folder: Path, base: Base, families: Mapping[str, Family]) -> dict[str, Any]:
    """Return what is odd about a tuned model, for the audit.

    unchanged: whether it computes the same as its base; tokenizer: the parts in which a tokenizer in its folder differs from its
    base's; unknown: the base that its adapters name, if that tells of none of the study's.
    """
    origin = Path(base["path"])
    found: dict[str, Any] = {"tokenizer": _other_parts(folder, origin), "unknown": None, "adapters": is_adapter(folder)}
    if not is_adapter(folder):
        return found | {"unchanged": _same_weights(folder, origin)}
    settings = json_object(folder / checkpoints.ADAPTER)
    known = named_bases(settings, families) or settings.get("base_model_name_or_path") in _repositories(families)
    unknown = None if known else str(settings.get("base_model_name_or_path") or "")
    return found | {"unchanged": _add_nothing(folder / WEIGHTS), "unknown": unknown}


def _repositories(families: Mapping[str, Family]) -> set[str]:
    """Return the hub repositories of families."""
    listed = {entry["repo"] for family in families.values() for entry in family.get("repos", ())}
    return listed | {family["repo"] for family in families.values() if "repo" in family}


def _add_nothing(path: Path) -> bool:
    """Return whether one factor of each pair of adapters is 0, and there are no other weights."""
    from safetensors import safe_open

    pairs: dict[str, bool] = {}
    with safe_open(path, "pt") as stored:
        for name in stored.keys():  # noqa: SIM118, since it is no mapping
            pair = FACTOR.sub("", name)
            if pair == name:
                return False
            pairs[pair] = pairs.get(pair, False) or not stored.get_tensor(name).any()
    return all(pairs.values())


def _same_weights(folder: Path, other: Path) -> bool:
    """Return whether two checkpoints have the same weights, whatever their precision and files.

    A weight that one of them leaves out, since it is tied to another, does not count. Reads up to the first difference.
    """
    places, others = (_places(path) for path in (folder, other))
    names = [name for name in places if name in others]
    return len(names) == min(len(places), len(others)) > 0 and all(
        _weight(places[name], name).equal(_weight(others[name], name)) for name in names
    )


def _places(folder: Path) -> dict[str, Path]:
    """Return the file of each weight of a checkpoint."""
    from safetensors import safe_open

    places: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as stored:
            places |= dict.fromkeys(stored.keys(), path)
    return places


def _weight(path: Path, name: str) -> Any:
    """Return a weight in fp32, which holds half precisions exactly."""
    from safetensors import safe_open

    with safe_open(path, "pt") as stored:
        return stored.get_tensor(name).float()


def _other_parts(folder: Path, base: Path) -> list[str]:
    """Return the parts in which the tokenizer of a folder differs from a base's; none if either has no `tokenizer.json`."""
    paths = [path / "tokenizer.json" for path in (folder, base)]
    if not all(path.is_file() for path in paths):
        return []
    own, other = (_parts_of(json_object(path)) for path in paths)
    return [name for name in own if own[name] != other[name]]


def _parts_of(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a tokenizer that decide on its tokens. Merges are pairs, or in older files texts."""
    model = tokenizer.get("model") or {}
    merges = [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in model.get("merges") or ()]
    added = [(token.get("id"), token.get("content")) for token in tokenizer.get("added_tokens") or ()]
    parts = {"vocabulary": model.get("vocab"), "merges": merges, "added tokens": added}
    return parts | {name: tokenizer.get(name) for name in ("normalizer", "pre_tokenizer", "post_processor")}
