"""Where a base's weights come from: family + step -> a checked folder of safetensors, and the one place that loads it.

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
from typing import TYPE_CHECKING, Any

from workflow.errors import StudyError, first_line, lacks_memory
from workflow.models import checkpoint_settings, tokenization
from workflow.storage import checksums, hub
from workflow.storage.files import json_object, write_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Names of constants that older versions of transformers saved beside the weights.
CONSTANT = re.compile(r"(attn|attention)\.(bias|masked_bias|causal_mask)$|rotary_emb\.inv_freq$")
ADAPTER = "adapter_config.json"
_ADAPTERS = (
    f"holds adapters ({ADAPTER}), which transformers would add to the weights beside them; expected full weights alone: "
    "merge the adapters, or move their files elsewhere"
)
FLOATS = ("F16", "BF16", "F32", "F64")
# What a model needs in order to be loaded: optimizer states, logs and other frameworks' weights stay where they are.
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
READ = (*NEEDED, "*.json", "*.jinja", TEMPLATES)  # what transformers may look for in a folder besides


def steps(name: str, family: Mapping[str, Any]) -> list[int]:
    """Training steps of a family, sorted; no network, as it runs whenever the workflow starts.

    Errors: StudyError for a listed step that is not there, and for a folder that is missing or holds no step at all.
    """
    if family["source"] == "hub":
        return _hub_steps(name, family)
    listed = family["steps"]
    there = sorted(family["pretraining"]["save"] if family["source"] == "trained" else _folders(name, family))
    if listed == "all":
        return there
    for step in listed:
        if step not in there:
            raise StudyError(
                f"config.yaml: families/{name}/steps: {step} is not there; allowed: {', '.join(map(str, there))}"
            )
    return sorted(listed)


def _hub_steps(name: str, family: Mapping[str, Any]) -> list[int]:
    """Listed steps of a hub family, `main` as the number it stands for."""
    place = f"config.yaml: families/{name}"
    if "repos" in family:
        numbers = sorted(entry["step"] for entry in family["repos"])
        if len(set(numbers)) < len(numbers):
            raise StudyError(f"{place}/repos: a step is listed twice; expected each once: {numbers}")
        return numbers
    listed = family["steps"]
    if listed == "all":
        raise StudyError(f"{place}/steps: 'all' is not allowed for a hub repository; list the steps")
    _expression(name, family["pattern"])
    numbers = [step for step in listed if step != "main"]
    if "main" not in listed:
        return sorted(numbers)
    if "main_step" not in family:
        raise StudyError(f"{place}/main_step: missing; expected the training step that the listed revision main holds")
    if family["main_step"] in numbers:
        raise StudyError(f"{place}/main_step: {family['main_step']} is listed in steps too; list it or main, not both")
    return sorted([*numbers, family["main_step"]])


def _folders(name: str, family: Mapping[str, Any]) -> dict[int, Path]:
    """Sub-folders of a local family by step: those whose whole name fits the pattern."""
    root = Path(family["path"])
    expression = _expression(name, family["pattern"])
    if not root.is_dir():
        raise StudyError(
            f"config.yaml: families/{name}/path: {root} is not a folder; expected sub-folders {family['pattern']}"
        )
    found: dict[int, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        match = expression.fullmatch(folder.name)
        if not match:
            continue
        step = int(match["step"])
        if step in found:
            raise StudyError(
                f"config.yaml: families/{name}/pattern: {found[step].name} and {folder.name} in {root} "
                f"are both step {step}; expected one folder for each step"
            )
        found[step] = folder
    if not found:
        raise StudyError(f"config.yaml: families/{name}/pattern: no sub-folder of {root} fits {family['pattern']}")
    return found


def _expression(name: str, pattern: str) -> re.Pattern[str]:
    """The expression behind the pattern of folders or revisions; a `*` beside `{step}` never takes a digit of the number."""
    if pattern.count("{step}") != 1 or re.search(r"[/\\]|\.\.", pattern):
        raise StudyError(
            f"config.yaml: families/{name}/pattern: {pattern!r} is not allowed; "
            f"expected a name with {{step}} in it once, * for anything"
        )
    before, after = (re.escape(part).replace(r"\*", ".*") for part in pattern.split("{step}"))
    start = "(?<![0-9])" if before.endswith(".*") else ""
    end = "(?![0-9])" if after.startswith(".*") else ""
    return re.compile(f"{before}{start}(?P<step>[0-9]+){end}{after}", re.DOTALL)


def files(name: str, family: Mapping[str, Any], step: int) -> list[Path]:
    """The files of a local folder that a base is made of; none of other sources."""
    place = folder(name, family, step)
    return _files(place) if place else []


def folder(name: str, family: Mapping[str, Any], step: int) -> Path | None:
    """Where the config says that a base lies; None of sources whose bases are put somewhere by a job.

    Errors: StudyError for a step that is not there.
    """
    if family["source"] != "folder":
        return None
    found = _folders(name, family)
    if step not in found:
        raise StudyError(
            f"family {name}: step {step} is not in {family['path']}; nearest steps: {_nearest(found, step)}"
        )
    return found[step]


def locate(
    name: str,
    family: Mapping[str, Any],
    step: int,
    place: Path,
    pinned: hub.Pin | None = None,
    contents: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Find the checkpoint of a base, downloading it where it is on the hub, check it, and return its manifest.

    place: of a local family the step's folder, of a trained one the folder of all trained families, in which it lies at
    `family=<name>/step=<step>`; pinned: what `pin` says of a step on the hub; contents: what tells a local checkpoint from
    others (`content_hashes.of_checkpoint`). The manifest: family, step, source, repo and revision (the hub's commit; None for
    other sources), path (folder; absolute, but for trained families, so that a study can be moved), files (name -> bytes,
    sha256), and of a local one contents and dates (name -> time of last change in nanoseconds), by which a later start knows
    unchanged files.
    Errors: StudyError when there is no such checkpoint or it is not one that can be loaded safely and whole.
    """
    if pinned:
        with hub.errors(f"family {name}, step {step}: {pinned['repo']}"):
            folder, files = hub.fetched(pinned)
    else:
        folder = trained_here(name, step, place) if family["source"] == "trained" else place
        checksums.check(folder)
    check(folder)
    manifest = {
        "family": name,
        "step": step,
        "source": family["source"],
        "repo": pinned["repo"] if pinned else None,
        "revision": pinned["commit"] if pinned else None,
        "path": str(folder if family["source"] == "trained" else folder.absolute()),
        "files": files if pinned else {path.name: _fingerprint(path) for path in _files(folder)},
    }
    if family["source"] != "folder":
        return manifest
    dates = {path.name: path.stat().st_mtime_ns for path in _files(folder)}
    return {**manifest, "contents": dict(contents or {}), "dates": dates}


LOCAL = ("path", "dates")  # what a manifest says of the machine that it was made on
PLACE = "place.json"  # beside a manifest, holds these facts: they are no part of what a base is


def write_base(base: Mapping[str, Any], path: Path) -> None:
    """Write a manifest, the same for the same checkpoint wherever it lies, and beside it where that is."""
    write_json({name: fact for name, fact in base.items() if name in LOCAL}, path.with_name(PLACE))
    write_json({name: fact for name, fact in base.items() if name not in LOCAL}, path)


def read_base(path: Path | str, folder: Path | None = None) -> dict[str, Any]:
    """What `fetch` recorded of a base: its folder, files and where they come from.

    folder: where the base lies now, if that is known. One from the hub lies in the client's cache, wherever that is now.
    """
    place = Path(path).with_name(PLACE)
    base = json_object(Path(path)) | (json_object(place) if place.is_file() else {})
    if folder is None and base.get("repo") and not Path(base.get("path", "")).is_dir():
        folder = hub.snapshot(base["repo"], "model", base["revision"])
    if folder is None and "path" not in base:
        folder = trained_here(base["family"], base["step"])
    return base if folder is None else {**base, "path": str(folder)}


def trained_here(name: str, step: int, root: Path = Path("resources/pretrained")) -> Path:
    """The folder of a step that was trained here."""
    return root / f"family={name}" / f"step={step}"


def identity(base: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a base from others wherever it lies: its manifest with the folder's name (`folder`) for its path.

    This is what results and tuned models state of it, since they are passed on and a path tells of the machine.
    """
    unread = (*LOCAL, "contents")
    return {name: fact for name, fact in base.items() if name not in unread} | {"folder": Path(base["path"]).name}


@contextmanager
def verified(base: Mapping[str, Any]) -> Iterator[None]:
    """Inside, a base is loaded, while a thread compares its files with the SHA-256 that `fetch` recorded of them.

    Errors: StudyError naming the first file that differs, whatever else its loading met; a base without record passes.
    """
    with ThreadPoolExecutor(1, "verify") as threads:
        reading = threads.submit(_compare, Path(base["path"]), base.get("files", {}))
        try:
            yield
        finally:
            reading.result()


def _compare(folder: Path, recorded: Mapping[str, Mapping[str, Any]]) -> None:
    """StudyError unless each file that is recorded is there and is what is recorded."""
    for name, known in recorded.items():
        if not (folder / name).is_file():
            raise StudyError(f"{folder / name}: missing, although `fetch` recorded it; {REMEDY}")
        if _fingerprint(folder / name) != known:
            raise StudyError(f"{folder / name}: is not what `fetch` recorded (its SHA-256 differs); {REMEDY}")


REMEDY = "restore it, or delete the base's base.json and run again if it is meant to be another"


def checkpoint_files(folder: str) -> list[str]:
    """The files that the checkpoint of a folder is made of.

    Errors: StudyError when it is not one that can be loaded safely and whole.
    """
    check(Path(folder))
    return [str(path) for path in _files(Path(folder))]


def _files(folder: Path) -> list[Path]:
    """Files of a checkpoint that a model needs, sorted by name.

    Errors: StudyError for a link out of the folder, since what it leads to would be read, and copied beside tuned weights;
    for a name with control characters, which Snakemake would print as they are.
    """
    for path in (*folder.iterdir(), *(folder / TEMPLATES).glob("*")):
        if path.is_symlink() and not _is_inside(path.resolve(), folder.resolve()) and _fits(path.name, READ):
            raise StudyError(f"{path}: a link that leaves the folder of the checkpoint; expected the file itself")
    found = sorted(path for path in folder.iterdir() if path.is_file() and _fits(path.name, NEEDED))
    for path in found:
        if not path.name.isprintable():
            raise StudyError(f"{path}: control characters in a file's name are not allowed; rename it")
    return found


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, or, of a snapshot in the hub's cache, among its repository's blobs."""
    blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else None
    return path.is_relative_to(folder) or (blobs is not None and path.parent == blobs)


def _fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a file name fits one of the patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def _fingerprint(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    return {"bytes": path.stat().st_size, "sha256": checksums.digest_once(path)}


def check(folder: Path) -> None:
    """Check that a folder holds a whole checkpoint: safetensors, config and tokenizer, no adapters, and no code of its own.

    Reads headers only, so it costs milliseconds whatever the model's size.
    Errors: StudyError naming folder or file and what is wrong with it.
    """
    if not folder.is_dir():
        raise StudyError(f"{folder}: no such folder; expected a checkpoint")
    _check_names(str(folder), [path.name for path in folder.iterdir() if path.is_file()])
    _files(folder)
    checkpoint_settings.check(folder, WEIGHTS if (folder / WEIGHTS).is_file() else INDEX)
    for shard in _shards(folder):
        _check_header(shard)


def _check_names(place: str, names: Iterable[str]) -> None:
    """StudyError unless the file names are those of a checkpoint that can be loaded."""
    there = sorted(names)
    if ADAPTER in there:
        raise StudyError(f"{place}: {_ADAPTERS}")
    if WEIGHTS not in there and INDEX not in there:
        pickles = [name for name in there if _fits(name, PICKLES)]
        if pickles and not any(name.endswith(".safetensors") for name in there):
            raise StudyError(f"{place}: holds pickled weights only ({', '.join(pickles)}); convert to safetensors")
        raise StudyError(
            f"{place}: weights are missing; expected {WEIGHTS} or {INDEX}, found {', '.join(there) or 'no file'}"
        )
    if "config.json" not in there:
        raise StudyError(f"{place}: config.json is missing")
    if not any(_fits(name, TOKENIZERS) for name in there):
        raise StudyError(f"{place}: the tokenizer is missing; expected one of {', '.join(TOKENIZERS)}")


def _shards(folder: Path) -> list[Path]:
    """Weight files of a checkpoint: the single one, which wins as it does in transformers, or those of its index."""
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


def _check_header(path: Path) -> None:
    """StudyError unless the file is as long as its own header says, and its weights are plain numbers, none of them empty.

    Integers would be read as if they were weights; buffers that are none, such as masks, do not count.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                found = file.get_slice(name)
                if name.endswith(".weight") and found.get_dtype() not in FLOATS:
                    raise StudyError(f"{path}: {name} is of type {found.get_dtype()}; allowed: {', '.join(FLOATS)}")
                if 0 in found.get_shape():
                    raise StudyError(
                        f"{path}: {name} is empty (shape {found.get_shape()}), as DeepSpeed's ZeRO-3 leaves weights that it "
                        "has not gathered; save the model again with its weights gathered (zero_to_fp32.py)"
                    )
    except (SafetensorError, OSError) as error:
        raise StudyError(f"{path}: damaged or cut short ({first_line(error)}); fetch or save it again") from error


def pin(name: str, family: Mapping[str, Any], step: int) -> dict[str, Any]:
    """What the hub holds of a step now (`hub.pin`): repository, commit and the files that a model needs.

    Pickles, which a download would leave out without a word, are refused before one that may take hours.
    Errors: StudyError when there is no such step, or it is none that can be loaded.
    """
    from huggingface_hub import is_offline_mode, snapshot_download

    repo = _repository(family, step)
    with hub.errors(f"family {name}, step {step}: {repo}"):
        reference = _reference(name, family, step, hub.refs(repo))

        def wanted(names: list[str]) -> list[str]:
            there = [name for name in names if "/" not in name]
            if is_offline_mode():  # the client knows what an earlier download was to bring
                patterns = {"allow_patterns": list(NEEDED), "ignore_patterns": ["*/*"]}
                snapshot_download(repo, revision=reference, local_files_only=True, **patterns)
            _check_names(f"{repo} at {reference}", there)
            return [name for name in there if _fits(name, NEEDED)]

        return hub.pin(repo, "model", reference, wanted)


def _repository(family: Mapping[str, Any], step: int) -> str:
    """The repository that holds a step of a hub family."""
    if "repos" in family:
        return next(entry["repo"] for entry in family["repos"] if entry["step"] == step)
    return family["repo"]


def _reference(name: str, family: Mapping[str, Any], step: int, refs: Mapping[str, set[str]]) -> str:
    """The branch or tag that holds a step: `main`, or what the family's pattern says, `-<anything>` behind it or not.

    Never built: what follows the number is a token count, which repositories round differently.
    """
    place = f"family {name}, step {step}: {_repository(family, step)}"
    is_main = "repos" in family or step == family.get("main_step")
    numbered = {} if is_main else _numbered(_expression(name, family["pattern"]), refs)
    fitting = sorted(ref for ref in refs if (ref == "main" if is_main else numbered.get(ref) == step))
    if not fitting:
        own = "main" if is_main else family["pattern"].replace("{step}", str(step))
        wanted = own if is_main else f"{own} or {own}-*"
        raise StudyError(
            f"{place} has no revision {wanted}{hub.where()}; nearest steps: {_nearest(numbered.values(), step)}"
        )
    if len(set.union(*(refs[ref] for ref in fitting))) > 1:
        raise StudyError(f"{place} has several revisions for this step: {', '.join(fitting)}; expected one commit")
    return fitting[0]


def _numbered(expression: re.Pattern[str], refs: Iterable[str]) -> dict[str, int]:
    """Steps of the references that fit an expression, with nothing behind it or a - and anything."""
    extended = re.compile(f"(?:{expression.pattern})(-.*)?", expression.flags)
    return {ref: int(match["step"]) for ref in refs if (match := extended.fullmatch(ref))}


def _nearest(there: Iterable[int], step: int) -> str:
    """The up to five steps nearest to one that is not there, for messages."""
    nearest = sorted(set(there), key=lambda other: (abs(other - step), other))[:5]
    return ", ".join(map(str, sorted(nearest))) or "none"


def import_model(path: Path | str) -> None:
    """Import the module of a checkpoint's model class, which takes longer than to load a small model; no other is.

    Errors: StudyError when its config cannot be read.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    with _loading_errors(path, "model"):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    # Looked up, a class is imported. Of a config without one `load_model` tells.
    MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)


def load_model(path: Path | str, dtype: torch.dtype, device: torch.device | str) -> PreTrainedModel:
    """The causal language model of a checkpoint folder, in evaluation mode; nothing that it is fed changes what it says later.

    Errors: StudyError when it cannot be loaded, when what follows a token changes what the model says of it, or when a
    parameter has no weights or weights have no parameter: transformers would go on with random numbers, or with less than was
    trained.
    """
    from transformers import AutoModelForCausalLM

    from workflow.models.engine import rotary

    if (Path(path) / ADAPTER).is_file():  # the hub's cache may have got it for another program
        raise StudyError(f"{path}: {_ADAPTERS}")
    with _loading_errors(path, "model"):
        model, info = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        found = {
            "missing": sorted(info["missing_keys"]),
            "unexpected": _weights_among(Path(path), info["unexpected_keys"]),
        }
        for finding, keys in found.items():
            if keys:
                raise StudyError(f"{path}: weights do not fit config.json: {len(keys)} {finding}, such as {keys[0]}")
        _heed_soft_caps(model)
        _check_causal(path, model.to(device))
        rotary.forget(model)
        return model


def _check_causal(path: Path | str, model: PreTrainedModel) -> None:
    """StudyError for a model that reads ahead, as an encoder does that is loaded as a causal model."""
    import torch

    last = model.config.get_text_config().vocab_size - 1
    with torch.no_grad():  # a model may keep what it computes for a later pass with gradients
        one, other = (
            model(input_ids=torch.tensor([[min(token, last) for token in row]], device=model.device), use_cache=False)
            .logits[0, :3]
            .float()
            for row in ([1, 2, 3, 4, 5], [1, 2, 3, 6, 7])
        )
    # Of a causal model both passes do the same but for rounding, in fp32 to the last digits.
    near = (1e-4 if model.dtype == torch.float32 else 0.02) * float(one.std().nan_to_num())
    if not torch.allclose(one, other, atol=near, rtol=0, equal_nan=True):
        raise StudyError(
            f"{path}: {type(model).__name__} reads tokens behind the one that it says something of; expected a causal model "
            "(of an encoder that was trained as one, config.json has is_decoder: true)"
        )


def _heed_soft_caps(model: PreTrainedModel) -> None:
    """Have a model that caps the scores of its attention do so: transformers before 5.23 loads it with torch's own, which
    leaves caps out without a word."""
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
    if capped and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


def _weights_among(folder: Path, names: Iterable[str]) -> list[str]:
    """Of tensors in a checkpoint's files that the model has no place for, those that are weights, sorted.

    Older versions of transformers saved constants that they computed themselves; a model of today computes them too.
    """
    from safetensors import safe_open

    left = {name for name in names if CONSTANT.search(name)}
    for shard in _shards(folder) if left else ():
        with safe_open(shard, "pt") as file:
            for name in left.intersection(file.keys()):
                if _is_constant(name, file.get_tensor(name)):
                    left.remove(name)
    return sorted(left.union(name for name in names if not CONSTANT.search(name)))


def _is_constant(name: str, values: torch.Tensor) -> bool:
    """Whether a tensor is a mask of tokens behind (or far before) a token, the score of masked places, or frequencies.

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
    """The tokenizer of a checkpoint folder, with the rules of its tokenizer.json where there is one.

    Errors: StudyError when it cannot be loaded, or has ids for which the model has no embedding.
    """
    from transformers import AutoConfig

    with _loading_errors(path, "tokenizer"):
        tokenizer = tokenization.load(Path(path))
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        rows, ids = config.get_text_config().vocab_size, max(tokenizer.get_vocab().values(), default=-1) + 1
        if ids > rows:
            raise StudyError(
                f"{path}: the tokenizer has {ids} ids, the model an embedding of {rows} rows; expected no more"
            )
        return tokenizer


@contextmanager
def _loading_errors(path: Path | str, what: str) -> Iterator[None]:
    """Turn whatever transformers raises on a folder into a StudyError of one line."""
    if not Path(path).is_dir():  # transformers would take the text for the name of a hub repository
        raise StudyError(f"{path}: no such folder; expected a checkpoint")
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # transformers and its parsers raise every kind, plain Exception among them
        if lacks_memory(error):
            raise
        raise StudyError(f"{path}: the {what} cannot be loaded: {first_line(error)}") from error
