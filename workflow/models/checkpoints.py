"""Find, check and load checkpoints: family + step -> a checked folder of safetensors. Nothing else loads a model.

A family is trained here, lies in a local folder with one sub-folder for each step, or is a hub repository with one
revision for each step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from workflow.errors import StudyError, first_line, lacks_memory
from workflow.models import checkpoint_settings, revisions, tokenization
from workflow.settings import Base, Family, FileRecord
from workflow.storage import checksums, hub
from workflow.storage.files import json_object, write_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Names of constants that older versions of transformers saved with the weights.
CONSTANT = re.compile(r"(attn|attention)\.(bias|masked_bias|causal_mask)$|rotary_emb\.inv_freq$")
ADAPTER = "adapter_config.json"
_ADAPTERS = (
    f"holds adapters ({ADAPTER}), which transformers would add to the weights beside them; expected full weights alone: "
    "merge the adapters, or move their files elsewhere"
)
FLOATS = ("F16", "BF16", "F32", "F64")
# The files that loading a model needs. Optimizer states, logs and other frameworks' weights are not downloaded.
NEEDED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    *TOKENIZERS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
)
TEMPLATES = "additional_chat_templates"
READ = (*NEEDED, "*.json", "*.jinja", TEMPLATES)  # all files that transformers may look for in a folder


def steps(name: str, family: Family) -> list[int]:
    """Return the training steps of a family, sorted. Uses no network, since it runs whenever the workflow starts.

    Errors: StudyError for a listed step that does not exist, and for a folder that is missing or has no step.
    """
    available = saved(name, family)
    whole = family["source"] in ("hub", "merged") or "folders" in family
    return available if whole else revisions.chosen(name, family["steps"], available)


def saved(name: str, family: Family) -> list[int]:
    """Return all steps of a family that have a checkpoint, sorted, those that the study leaves out among them; of a family on
    the hub the listed ones. Errors: as `steps`."""
    if family["source"] == "hub":
        return _hub_steps(name, family)
    if family["source"] == "merged":
        return sorted(family["steps"])  # listed by `study.families`, which knows the averaged family
    if "folders" in family:
        return _each_once(f"config.yaml: families/{name}/folders", (entry["step"] for entry in family["folders"]))
    return sorted(family["pretraining"]["save"] if family["source"] == "trained" else _folders(name, family))


def averaged(family: Family, families: Mapping[str, Family], step: int) -> list[int]:
    """Return the steps whose checkpoints the mean of a merged family at a step is made of."""
    available = saved(family["family"], families[family["family"]])
    place = available.index(step) + 1
    return available[place - family["last"] : place]


def _each_once(key_path: str, steps: Iterable[int]) -> list[int]:
    """Return steps, sorted, each of which must appear once."""
    numbers = sorted(steps)
    if len(set(numbers)) < len(numbers):
        raise StudyError(f"{key_path}: a step is listed twice; expected each once: {numbers}")
    return numbers


def _hub_steps(name: str, family: Family) -> list[int]:
    """Return the listed steps of a hub family, `main` as its step number."""
    key_path = f"config.yaml: families/{name}"
    if "repos" in family:
        return _each_once(f"{key_path}/repos", (entry["step"] for entry in family["repos"]))
    listed = family["steps"]
    revisions.expression(name, family["pattern"])
    numbers = [step for step in listed if step != "main"]
    if "main" not in listed:
        return sorted(numbers)
    if "main_step" not in family:
        raise StudyError(
            f"{key_path}/main_step: missing; expected the training step that the listed revision main holds"
        )
    if family["main_step"] in numbers:
        raise StudyError(
            f"{key_path}/main_step: {family['main_step']} is listed in steps too; list it or main, not both"
        )
    return sorted([*numbers, family["main_step"]])


def _folders(name: str, family: Family) -> dict[int, Path]:
    """Return the sub-folders of a local family by step: those whose whole name matches the pattern, or that a table lists."""
    root = Path(family["path"])
    if "folders" in family:
        return {entry["step"]: root / entry["folder"] for entry in family["folders"]}
    expression = revisions.expression(name, family["pattern"])
    if not root.is_dir():
        raise StudyError(
            f"config.yaml: families/{name}/path: {root} is not a folder; expected sub-folders {family['pattern']}"
        )
    folders: dict[int, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        match = expression.fullmatch(folder.name)
        if not match:
            continue
        step = int(match["step"])
        if step in folders:
            raise StudyError(
                f"config.yaml: families/{name}/pattern: {folders[step].name} and {folder.name} in {root} "
                f"are both step {step}; expected one folder for each step"
            )
        folders[step] = folder
    if not folders:
        raise StudyError(f"config.yaml: families/{name}/pattern: no sub-folder of {root} matches {family['pattern']}")
    return folders


def files(name: str, family: Family, step: int) -> list[Path]:
    """Return the files of a base in a local folder; none for other sources."""
    checkpoint = folder(name, family, step)
    return _files(checkpoint) if checkpoint else []


def folder(name: str, family: Family, step: int) -> Path | None:
    """Return the folder that the config gives for a base; None for sources whose folder a job makes.

    Errors: StudyError for a step that does not exist.
    """
    if family["source"] != "folder":
        return None
    folders = _folders(name, family)
    if step not in folders:
        raise StudyError(
            f"family {name}: step {step} is not in {family['path']}; nearest steps: {_nearest(folders, step)}"
        )
    return folders[step]


def locate(
    name: str,
    family: Family,
    step: int,
    place: Path,
    pinned: hub.Pin | None = None,
    contents: Mapping[str, Any] | None = None,
) -> Base:
    """Find the checkpoint of a base, download it if it is on the hub, check it, and return its manifest.

    place: for a local family the step's folder; for a trained or merged one the folder of all such families, which holds it at
    `family=<name>/step=<step>`. pinned: the result of `pin` for a step on the hub. contents: the content hashes of a local
    checkpoint (`content_hashes.of_checkpoint`). The manifest has family, step, source, repo and revision (the hub's commit;
    None for other sources), path (of the folder; relative for families made here, so that a study can be moved), files
    (name -> bytes, sha256), and for a local checkpoint contents and dates (name -> time of last change in nanoseconds), by
    which a later start recognises unchanged files.
    Errors: StudyError if there is no such checkpoint, or it cannot be loaded safely and completely.
    """
    if pinned:
        with hub.errors(f"family {name}, step {step}: {pinned['repo']}"):
            folder, files = hub.fetched(pinned)
    else:
        folder = made_here(name, step, place) if family["source"] in MADE_HERE else place
        checksums.check(folder)
    check(folder)
    manifest: Base = {
        "family": name,
        "step": step,
        "source": family["source"],
        "repo": pinned["repo"] if pinned else None,
        "revision": pinned["commit"] if pinned else None,
        "path": str(folder if family["source"] in MADE_HERE else folder.absolute()),
        "files": cast(dict[str, FileRecord], files)
        if pinned
        else {path.name: fingerprint(path) for path in _files(folder)},
    }
    if family["source"] != "folder":
        return manifest
    dates = {path.name: path.stat().st_mtime_ns for path in _files(folder)}
    manifest["contents"], manifest["dates"] = dict(contents or {}), dates
    return manifest


# Source -> folder of all families whose checkpoints the study makes.
MADE_HERE = {"trained": Path("resources/pretrained"), "merged": Path("resources/averaged")}
LOCAL = ("path", "dates")  # keys of a manifest that depend on the machine
PLACE = "place.json"  # holds these keys beside the manifest, since they are not part of a base's identity


def write_base(base: Base, path: Path) -> None:
    """Write a manifest, the same for the same checkpoint in any folder, and its location to a file beside it."""
    write_json({name: fact for name, fact in base.items() if name in LOCAL}, path.with_name(PLACE))
    write_json({name: fact for name, fact in base.items() if name not in LOCAL}, path)


def read_base(path: Path | str, folder: Path | None = None) -> Base:
    """Return the manifest of a base as `fetch` recorded it.

    folder: the base's current folder, if it is known. A base from the hub is looked up in the client's current cache.
    """
    location = Path(path).with_name(PLACE)
    base = json_object(Path(path)) | (json_object(location) if location.is_file() else {})
    if folder is None and base.get("repo") and not Path(base.get("path", "")).is_dir():
        folder = hub.snapshot(base["repo"], "model", base["revision"])
    if folder is None and "path" not in base:
        folder = made_here(base["family"], base["step"], MADE_HERE[base["source"]])
    return cast(Base, base if folder is None else {**base, "path": str(folder)})


def made_here(name: str, step: int, root: Path) -> Path:
    """Return the folder of a step that the study makes. root: of all families of its source."""
    return root / f"family={name}" / f"step={step}"


def place(name: str, family: Family, step: int) -> Path:
    """Return the folder of a base that is not on the hub: as the config names it, or where the study makes it."""
    return folder(name, family, step) or made_here(name, step, MADE_HERE[family["source"]])


def identity(base: Base) -> dict[str, Any]:
    """Return what identifies a base on any machine: its manifest with the folder's name (`folder`) instead of its path.

    Results and tuned models record this, since they are shared and a path would name the machine's folders.
    """
    unread = (*LOCAL, "contents")
    return {name: fact for name, fact in base.items() if name not in unread} | {"folder": Path(base["path"]).name}


@contextmanager
def verified(base: Base) -> Iterator[None]:
    """While the context loads a base, compare its files with the SHA-256 that `fetch` recorded, in a thread.

    Errors: StudyError naming the first file that differs, even if loading fails too; a base without record passes.
    """
    with ThreadPoolExecutor(1, "verify") as threads:
        reading = threads.submit(_compare, Path(base["path"]), base.get("files", {}))
        try:
            yield
        finally:
            reading.result()


def _compare(folder: Path, recorded: Mapping[str, FileRecord]) -> None:
    """Raise StudyError unless each recorded file exists and is unchanged."""
    for name, expected in recorded.items():
        if not (folder / name).is_file():
            raise StudyError(f"{folder / name}: missing, although `fetch` recorded it; {REMEDY}")
        if fingerprint(folder / name) != expected:
            raise StudyError(f"{folder / name}: is not what `fetch` recorded (its SHA-256 differs); {REMEDY}")


REMEDY = "restore it, or, if the change is intended, delete the base's base.json and run again"


def checkpoint_files(folder: str) -> list[str]:
    """Return the files of the checkpoint in a folder.

    Errors: StudyError if it cannot be loaded safely and completely.
    """
    check(Path(folder))
    return [str(path) for path in _files(Path(folder))]


def _files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint that a model needs, sorted by name.

    Errors: StudyError for a link out of the folder, since its target would be read and copied beside tuned weights; for a
    name with control characters, which Snakemake would print unescaped.
    """
    for path in (*folder.iterdir(), *(folder / TEMPLATES).glob("*")):
        if path.is_symlink() and not _is_inside(path.resolve(), folder.resolve()) and _fits(path.name, READ):
            raise StudyError(f"{path}: a link that leaves the folder of the checkpoint; expected the file itself")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and _fits(path.name, NEEDED))
    for path in paths:
        if not path.name.isprintable():
            raise StudyError(f"{path}: control characters in a file's name are not allowed; rename it")
    return paths


def _is_inside(path: Path, folder: Path) -> bool:
    """Return whether a file is in a folder or, for a snapshot in the hub's cache, among its repository's blobs."""
    blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else None
    return path.is_relative_to(folder) or (blobs is not None and path.parent == blobs)


def _fits(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a file name matches one of the patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def fingerprint(path: Path) -> FileRecord:
    """Return the size in bytes and the SHA-256 of a file."""
    return {"bytes": path.stat().st_size, "sha256": checksums.digest_once(path)}


def check(folder: Path) -> None:
    """Check that a folder holds a complete checkpoint: safetensors, config and tokenizer, no adapters and no code.

    Reads headers only, so it takes milliseconds for any size of model.
    Errors: StudyError naming the folder or file and the fault.
    """
    if not folder.is_dir():
        raise StudyError(f"{folder}: no such folder; expected a checkpoint")
    _check_names(str(folder), [path.name for path in folder.iterdir() if path.is_file()])
    _files(folder)
    checkpoint_settings.check(folder, WEIGHTS if (folder / WEIGHTS).is_file() else INDEX)
    for shard in weight_files(folder):
        check_header(shard)


def _check_names(location: str, names: Iterable[str]) -> None:
    """Raise StudyError unless the file names are those of a checkpoint that can be loaded."""
    present = sorted(names)
    if ADAPTER in present:
        raise StudyError(f"{location}: {_ADAPTERS}")
    if WEIGHTS not in present and INDEX not in present:
        pickles = [name for name in present if _fits(name, PICKLES)]
        if pickles and not any(name.endswith(".safetensors") for name in present):
            raise StudyError(f"{location}: holds pickled weights only ({', '.join(pickles)}); convert to safetensors")
        raise StudyError(
            f"{location}: weights are missing; expected {WEIGHTS} or {INDEX}, found {', '.join(present) or 'no file'}"
        )
    if "config.json" not in present:
        raise StudyError(f"{location}: config.json is missing")
    if not any(_fits(name, TOKENIZERS) for name in present):
        raise StudyError(f"{location}: the tokenizer is missing; expected one of {', '.join(TOKENIZERS)}")


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a checkpoint: the single file, which transformers prefers too, or those of its index."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    entries = json_object(folder / INDEX).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise StudyError(f"{folder / INDEX}: 'weight_map' is missing; expected tensor names with their files")
    shards = sorted({str(name) for name in entries.values()})
    for name in shards:
        if Path(name).name != name or not (folder / name).is_file():
            raise StudyError(f"{folder / INDEX}: names {name}, which is not in the folder")
    return [folder / name for name in shards]


def check_header(path: Path) -> None:
    """Raise StudyError unless the file is as long as its header says and its weights are floats, none of them empty.

    Integers would be loaded as if they were weights; buffers such as masks may be integers.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_slice(name)
                if name.endswith(".weight") and tensor.get_dtype() not in FLOATS:
                    raise StudyError(f"{path}: {name} is of type {tensor.get_dtype()}; allowed: {', '.join(FLOATS)}")
                if 0 in tensor.get_shape():
                    raise StudyError(
                        f"{path}: {name} is empty (shape {tensor.get_shape()}), as DeepSpeed's ZeRO-3 leaves weights that it "
                        "has not gathered; save the model again with its weights gathered (zero_to_fp32.py)"
                    )
    except (SafetensorError, OSError) as error:
        raise StudyError(f"{path}: damaged or cut short ({first_line(error)}); fetch or save it again") from error


def pin(name: str, family: Family, step: int) -> dict[str, Any]:
    """Return what the hub has for a step now (`hub.pin`): repository, commit and the files that a model needs.

    A repository with pickled weights only is refused here, before a download that may take hours.
    Errors: StudyError if there is no such step, or it cannot be loaded.
    """
    from huggingface_hub import is_offline_mode, snapshot_download

    repo = _repository(family, step)
    with hub.errors(f"family {name}, step {step}: {repo}"):
        reference = _reference(name, family, step, hub.refs(repo))

        def wanted(names: list[str]) -> list[str]:
            top_level = [name for name in names if "/" not in name]
            if is_offline_mode():  # the client knows which files an earlier download asked for
                snapshot_download(
                    repo,
                    revision=reference,
                    local_files_only=True,
                    allow_patterns=list(NEEDED),
                    ignore_patterns=["*/*"],
                )
            return needed(f"{repo} at {reference}", top_level)

        return hub.pin(repo, "model", reference, wanted)


def needed(location: str, names: Iterable[str]) -> list[str]:
    """Return the files among some names that a model needs.

    Errors: StudyError unless they are those of a checkpoint that can be loaded.
    """
    listed = list(names)
    _check_names(location, listed)
    return [name for name in listed if _fits(name, NEEDED)]


def _repository(family: Family, step: int) -> str:
    """Return the repository of a step of a hub family."""
    if "repos" in family:
        return next(entry["repo"] for entry in family["repos"] if entry["step"] == step)
    return family["repo"]


def _reference(name: str, family: Family, step: int, refs: Mapping[str, set[str]]) -> str:
    """Return the branch or tag of a step: `main`, or a match of the family's pattern with or without `-<anything>` after it.

    The name is looked up, never built: the number is followed by a token count, which repositories round differently.
    """
    location = f"family {name}, step {step}: {_repository(family, step)}"
    stated = [entry["revision"] for entry in family.get("repos", ()) if entry["step"] == step and "revision" in entry]
    if stated:
        return stated[0]  # a branch, a tag or a commit, which no list of references has
    is_main = "repos" in family or step == family.get("main_step")
    numbered = {} if is_main else revisions.numbered(revisions.expression(name, family["pattern"]), refs)
    fitting = sorted(ref for ref in refs if (ref == "main" if is_main else numbered.get(ref) == step))
    if not fitting:
        expected = "main" if is_main else family["pattern"].replace("{step}", str(step))
        wanted = expected if is_main else f"{expected} or {expected}-*"
        raise StudyError(
            f"{location} has no revision {wanted}{hub.where()}; nearest steps: {_nearest(numbered.values(), step)}"
        )
    if len(set.union(*(refs[ref] for ref in fitting))) > 1:
        raise StudyError(f"{location} has several revisions for this step: {', '.join(fitting)}; expected one commit")
    return fitting[0]


def _nearest(available: Iterable[int], step: int) -> str:
    """Return the up to five existing steps nearest to a missing one, for messages."""
    nearest = sorted(set(available), key=lambda other: (abs(other - step), other))[:5]
    return ", ".join(map(str, sorted(nearest))) or "none"


def import_model(path: Path | str) -> None:
    """Import the module of a checkpoint's model class and no other; this takes longer than loading a small model.

    Errors: StudyError if its config cannot be read.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    with _loading_errors(path, "model"):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    # The lookup imports the class. `load_model` reports a config without one.
    MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)


def load_model(path: Path | str, dtype: torch.dtype, device: torch.device | str) -> PreTrainedModel:
    """Return the causal language model of a checkpoint folder, in evaluation mode, without state between forward passes.

    Errors: StudyError if it cannot be loaded, if it attends to later tokens, or if a parameter has no weights or weights
    have no parameter: transformers would continue with random numbers, or without some trained weights.
    """
    from transformers import AutoModelForCausalLM

    from workflow.models.engine import rotary

    if (Path(path) / ADAPTER).is_file():  # the hub's cache may have got it for another program
        raise StudyError(f"{path}: {_ADAPTERS}")
    model: PreTrainedModel
    info: dict[str, Any]
    with _loading_errors(path, "model"):
        model, info = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )  # type: ignore[misc]  # with output_loading_info it returns a pair
        mismatches = {
            "missing": sorted(info["missing_keys"]),
            "unexpected": _weights_among(Path(path), info["unexpected_keys"]),
        }
        for kind, keys in mismatches.items():
            if keys:
                raise StudyError(f"{path}: weights do not fit config.json: {len(keys)} {kind}, such as {keys[0]}")
        _heed_soft_caps(model)
        model.to(device)  # type: ignore[arg-type]  # transformers wraps `to` in a way that hides its arguments
        _check_causal(path, model)
        rotary.forget(model)
        return model


def _check_causal(path: Path | str, model: PreTrainedModel) -> None:
    """Raise StudyError for a model that attends to later tokens, such as an encoder loaded as a causal model."""
    import torch

    last = model.config.get_text_config().vocab_size - 1
    with torch.no_grad():  # a model may keep what it computes for a later pass with gradients
        one, other = (
            model(input_ids=torch.tensor([[min(token, last) for token in row]], device=model.device), use_cache=False)
            .logits[0, :3]
            .float()
            for row in ([1, 2, 3, 4, 5], [1, 2, 3, 6, 7])
        )
    # A causal model gives the same logits in both passes up to rounding, in fp32 to the last digits.
    near = (1e-4 if model.dtype == torch.float32 else 0.02) * float(one.std().nan_to_num())
    if not torch.allclose(one, other, atol=near, rtol=0, equal_nan=True):
        raise StudyError(
            f"{path}: {type(model).__name__} attends to later tokens; expected a causal model "
            "(for an encoder trained as one, set is_decoder: true in config.json)"
        )


def _heed_soft_caps(model: PreTrainedModel) -> None:
    """Switch a model with soft-capped attention to eager attention: before 5.23, transformers loads it with torch's attention,
    which ignores the caps silently."""
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
    if capped and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


def _weights_among(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the tensors that are weights among those of a checkpoint that the model has no parameter for, sorted.

    Older versions of transformers also saved constants, which a model now computes itself.
    """
    from safetensors import safe_open

    left = {name for name in names if CONSTANT.search(name)}
    for shard in weight_files(folder) if left else ():
        with safe_open(shard, "pt") as file:
            for name in left.intersection(file.keys()):
                if _is_constant(name, file.get_tensor(name)):
                    left.remove(name)
    return sorted(left.union(name for name in names if not CONSTANT.search(name)))


def _is_constant(name: str, values: torch.Tensor) -> bool:
    """Return whether a tensor is a causal (or windowed) mask, the score of masked positions, or rotary frequencies.

    GPT-2, GPT-J and GPT-Neo have the first two (`bias` of shape (1, 1, n, n), of ones and zeros, and the scalar
    `masked_bias`), CodeGen the mask as `causal_mask`; others `inv_freq` of their rotary positions.
    """
    if name.endswith("masked_bias"):
        return values.numel() == 1
    if name.endswith("inv_freq"):
        return values.dim() == 1
    if values.dim() != 4 or values.shape[-1] != values.shape[-2]:
        return False
    mask = values.float()
    return bool((mask == mask.tril()).all()) and bool(((mask == 0) | (mask == 1)).all())


def load_tokenizer(path: Path | str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint folder, with the rules of its tokenizer.json if there is one.

    Errors: StudyError if it cannot be loaded, or has ids for which the model has no embedding.
    """
    from transformers import AutoConfig

    with _loading_errors(path, "tokenizer"):
        tokenizer = tokenization.load(Path(path))
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        rows, ids = config.get_text_config().vocab_size, max(tokenizer.get_vocab().values(), default=-1) + 1
        if ids > rows:
            raise StudyError(
                f"{path}: the tokenizer has {ids} ids, the model's embedding {rows} rows; expected at most {rows} ids"
            )
        return tokenizer


@contextmanager
def _loading_errors(path: Path | str, what: str) -> Iterator[None]:
    """Turn every error that transformers raises on a folder into a StudyError of one line."""
    if not Path(path).is_dir():  # transformers would take the text for the name of a hub repository
        raise StudyError(f"{path}: no such folder; expected a checkpoint")
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # transformers and its parsers raise all kinds, plain Exception too
        if lacks_memory(error):
            raise
        raise StudyError(f"{path}: the {what} cannot be loaded: {first_line(error)}") from error
