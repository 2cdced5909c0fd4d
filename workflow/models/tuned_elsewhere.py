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
            folder = checkpoints.folder(family, block, step) or checkpoints.trained_here(family, step)
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
    folder = checkpoints.folder(name, family, step) or checkpoints.trained_here(name, step)
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
