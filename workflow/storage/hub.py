"""Repositories on the hub, through `huggingface_hub`: pinning to commits, listing files, verified downloads.

A pin records the commit of a repository, and the size and the hub's hash of each file. Pinned files that are complete in the
client's cache are read without a network. A mirror (HF_ENDPOINT), the cache (HF_HOME), HF_HUB_OFFLINE and HF_TOKEN work as
everywhere.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import itertools
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from workflow.errors import StudyError, escaped, first_line, shown
from workflow.storage.checksums import digest
from workflow.storage.files import json_object

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

Pin = Mapping[str, Any]
Result = TypeVar("Result")

LIMITED = 20  # waits for the end of a rate limit; its window is five minutes on the public hub
UNTOLD = 30.0  # seconds to wait where a rate limit does not say how long it lasts
FAILING = 2  # repetitions after an error of the server itself, beside the client's own
CARDS = ("README.md", ".huggingface.yaml", "dataset_infos.json")  # files with settings for reading a dataset
SIZES = ("bytes", "kB", "MB", "GB", "TB")


def refs(repo: str, kind: str = "model") -> dict[str, set[str]]:
    """Branches and tags of a repository with their commits: two where a branch and a tag of one name differ.

    Offline they are those that the cache knows.
    """
    from huggingface_hub import HfApi, is_offline_mode

    if is_offline_mode():
        root = _storage(repo, kind) / "refs"
        names = [path for path in root.rglob("*") if path.is_file()]
        return {path.relative_to(root).as_posix(): {path.read_text().strip()} for path in names}
    listing = patiently(lambda: HfApi().list_repo_refs(repo, repo_type=kind))
    commits: dict[str, set[str]] = {}
    for ref in [*listing.branches, *listing.tags]:
        commits.setdefault(ref.name, set()).add(ref.target_commit)
    return commits


def snapshot(repo: str, kind: str, commit: str) -> Path:
    """Path of a commit's files in the client's cache, whether it exists or not."""
    return _storage(repo, kind) / "snapshots" / commit


def _storage(repo: str, kind: str) -> Path:
    """A repository's folder in the client's cache, which has a documented layout: refs, snapshots, blobs."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=kind)


def pin(repo: str, kind: str, reference: str | None, wanted: Callable[[list[str]], Iterable[str]]) -> dict[str, Any]:
    """Pin a reference (branch, tag or commit; None: main): repo, kind, revision, commit, files.

    wanted: function from the repository's file names to those to pin; files: name -> bytes and either `sha256` (large files)
    or `git` (Git's SHA-1 of a blob). Offline, the files are those in the cache. Errors: StudyError for a file name that
    leads out of its folder.
    """
    from huggingface_hub import HfApi, is_offline_mode

    offline, api = is_offline_mode(), HfApi()
    # Resolving by name records the name in the cache: without it an offline run could not find the commit again.
    revision = patiently(
        lambda: api.resolve_revision(repo, revision=reference, repo_type=kind, local_files_only=offline)
    )
    commit = revision.resolved
    files = _cached_files(repo, kind, commit) if offline else patiently(lambda: _listed_files(api, repo, kind, commit))
    for name in files:
        if "\\" in name or {"", ".", ".."} & set(name.split("/")):
            raise StudyError(
                f"{repo} at {revision}: lists a file {shown(name)}; allowed: names without .., backslash or a leading slash"
            )
    return {
        "repo": repo,
        "kind": kind,
        "revision": str(revision),
        "commit": commit,
        "files": {name: files[name] for name in wanted(sorted(files))},
    }


def read_pin(path: Path | str) -> dict[str, Any]:
    """Read a pin from a file."""
    return json_object(Path(path))


def _listed_files(api: Any, repo: str, kind: str, commit: str) -> dict[str, dict[str, Any]]:
    """All files of a commit with size and hash, as the hub lists them."""
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(repo, recursive=True, revision=commit, repo_type=kind)
    return {
        entry.path: {"bytes": entry.size, **({"sha256": entry.lfs.sha256} if entry.lfs else {"git": entry.blob_id})}
        for entry in entries
        if isinstance(entry, RepoFile)
    }


def _cached_files(repo: str, kind: str, commit: str) -> dict[str, dict[str, Any]]:
    """Files of a commit in the cache, where a blob is named by the hub's hash."""
    folder = _storage(repo, kind) / "snapshots" / commit
    cached = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        blob = path.resolve().name
        named = {40: "git", 64: "sha256"}.get(len(blob)) if re.fullmatch("[0-9a-f]+", blob) else None
        stated = {named: blob} if named else {"sha256": digest(path)}
        cached[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, **stated}
    return cached


def pin_dataset(repo: str, subset: str | None, reference: str | None, folders: bool) -> dict[str, Any]:
    """Pin a subset of a dataset, with the settings to read it: loader, options, features, splits (name -> files).

    `datasets` decides which files belong to a subset. folders: whether a subset is a folder (of an export) instead of a
    configuration.
    """
    import datasets

    whole = pin(repo, "dataset", reference, list)
    part = {"data_dir": subset} if folders else {"name": subset}
    builder = patiently(lambda: datasets.load_dataset_builder(repo, **part, revision=whole["commit"]))
    root = f"hf://datasets/{repo}@{whole['commit']}/"
    splits = {
        str(split): [str(path).removeprefix(root) for path in paths]
        for split, paths in builder.config.data_files.items()
    }
    names = {*CARDS, *itertools.chain.from_iterable(splits.values())}
    features = builder.info.features
    return {
        **whole,
        "files": {name: stated for name, stated in whole["files"].items() if name in names},
        "loader": type(builder).__module__.rsplit(".", 1)[1],
        "options": _options(builder.config),
        "features": features.to_dict() if features else None,
        "splits": splits,
    }


def _options(settings: Any) -> dict[str, Any]:
    """Reader options of a dataset's card, such as a separator."""
    unread = {"name", "version", "data_dir", "data_files", "description", "features"}
    plain = (str, int, float, bool, list)
    return {
        field.name: value
        for field in dataclasses.fields(settings)
        if field.name not in unread
        and isinstance(value := getattr(settings, field.name), plain)
        and value != field.default
    }


def rows(pinned: Pin, split: str) -> Iterator[dict[str, Any]]:
    """Rows of a split of a pinned dataset, downloaded if they are not in the cache.

    Errors: StudyError if there is no such split or the download fails.
    """
    import datasets

    source = pinned["repo"]
    if split not in pinned["splits"]:
        raise StudyError(f"{source}: has no split {split!r}; allowed: {', '.join(pinned['splits'])}")
    with errors(source):
        folder, _ = fetched(pinned)
    files = [str(folder / name) for name in pinned["splits"][split]]
    features = datasets.Features.from_dict(pinned["features"]) if pinned["features"] else None
    # An answer "None" or "N/A" is a text; pandas would read it as a blank.
    blanks = {"keep_default_na": False, "na_values": [""]} if pinned["loader"] == "csv" else {}
    try:
        # Read without a copy in Arrow format, which would double the disk space.
        yield from datasets.load_dataset(
            pinned["loader"],
            data_files={split: files},
            split=split,
            features=features,
            streaming=True,
            **(blanks | pinned["options"]),
        )
    except Exception as error:  # each reader raises exceptions of its own
        raise StudyError(f"{source}: split {split!r} cannot be read: {first_line(error)}") from error


def fetched(pinned: Pin) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Folder of a pin's files, and bytes and sha256 of each; files that are not in the cache are downloaded.

    Makes no request if all files are cached. Errors: StudyError for a file that differs from what the hub states. It is
    removed, because the client would accept it as complete.
    """
    from huggingface_hub import snapshot_download

    repo, kind, commit = pinned["repo"], pinned["kind"], pinned["commit"]
    folder = snapshot(repo, kind, commit)
    if lacking(pinned):
        names = [glob.escape(name) for name in pinned["files"]]
        patiently(lambda: snapshot_download(repo, repo_type=kind, revision=commit, allow_patterns=names))
    return folder, {name: _verified(pinned, folder, name) for name in pinned["files"]}


def lacking(pinned: Pin) -> dict[str, int]:
    """Bytes of each file of a pin that is not complete in the cache."""
    folder = snapshot(pinned["repo"], pinned["kind"], pinned["commit"])
    return {
        name: stated["bytes"]
        for name, stated in pinned["files"].items()
        if not (folder / name).is_file() or (folder / name).stat().st_size != stated["bytes"]
    }


def _verified(pinned: Pin, folder: Path, name: str) -> dict[str, Any]:
    """Size and SHA-256 of a file that matches its pin."""
    path, stated = folder / name, pinned["files"][name]
    found = {"bytes": path.stat().st_size, "sha256": digest(path)}
    same = found["sha256"] == stated["sha256"] if "sha256" in stated else _git(path) == stated["git"]
    if not same:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise StudyError(
            f"{pinned['repo']} at {pinned['revision']}: {name}: its hash differs from the one that the hub states; "
            f"the file was removed, run again to download it"
        )
    return found


def _git(path: Path) -> str:
    """Git's SHA-1 of a file as a blob."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as content:
        while chunk := content.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def need(pins: Iterable[Pin]) -> int:
    """Bytes to download for some pins; each file counts once."""
    files = {}
    for pinned in pins:
        for name, size in lacking(pinned).items():
            stated = pinned["files"][name]
            files[pinned["kind"], pinned["repo"], stated.get("sha256", stated.get("git"))] = size
    return sum(files.values())


def prefetch(pins: Sequence[Pin], tell: Callable[[str], None]) -> None:
    """Download and verify all files of the pins. The size is logged and compared with the free disk space first.

    Errors: StudyError if the disk is too small or a download fails.
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    wanted, free = need(pins), shutil.disk_usage(there).free
    tell(f"{amount(wanted)} to download for {len(pins)} checkpoints and datasets; {amount(free)} free in {cache}")
    if wanted > free:
        raise StudyError(
            f"{cache}: {amount(free)} free, {amount(wanted)} to download; free space, or set HF_HOME to a larger disk"
        )
    for pinned in pins:
        with errors(f"{pinned['repo']} at {pinned['revision']}"):
            fetched(pinned)
        tell(escaped(f"{pinned['kind']} {pinned['repo']} at {pinned['revision']} ({pinned['commit']}): complete"))


def amount(size: float) -> str:
    """A readable number of bytes."""
    for unit in SIZES:
        if size < 1000 or unit == SIZES[-1]:
            return f"{size:.0f} {unit}" if unit == SIZES[0] else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("no unit is beyond the last")


def patiently(call: Callable[[], Result]) -> Result:
    """Call the client, again after a rate limit has passed and after an error of the server."""
    for attempt in itertools.count(1):
        try:
            return call()
        except Exception as error:  # any class: the response behind it decides
            pause = _pause(error, attempt)
            if pause is None:
                raise
            logging.getLogger(__name__).warning("rate limit or server error of the hub: next attempt in %g s", pause)
            time.sleep(pause)
    raise AssertionError("attempts have no end of their own")


def _pause(error: BaseException, attempt: int) -> float | None:
    """Seconds to wait before the next attempt; None if there is none."""
    from huggingface_hub.utils import parse_ratelimit_headers

    answer = _answer(error)
    if answer is None:
        return None
    status, headers = answer.response.status_code, answer.response.headers
    if status == 429 and attempt <= LIMITED:
        limit, told = parse_ratelimit_headers(headers), headers.get("retry-after", "")
        if limit and limit.remaining == 0:
            return limit.reset_in_seconds + 1.0
        return float(told) if told.isdigit() else UNTOLD
    return float(2 ** (attempt - 1)) if status >= 500 and attempt <= FAILING else None


def _answer(error: BaseException | None) -> HfHubHTTPError | None:
    """The hub's response behind an error, which the client sometimes wraps; None if there is none."""
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def errors(source: str) -> Iterator[None]:
    """Context manager: turn any exception of the hub's client into a StudyError of one line."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # the client raises some twenty unrelated classes
        # Neither the message nor the chain: they quote addresses and headers, in which credentials can stand.
        raise StudyError(f"{source}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Explanation of an error of the hub's client for its user."""
    from huggingface_hub import constants, errors

    host = urlsplit(constants.ENDPOINT).hostname
    if isinstance(error, errors.GatedRepoError):
        return f"gated by {host}: accept its terms there, then log in with a token that has access"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"not found on {host}: it does not exist, or it is private and no token with access to it is set"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the revision is not found on {host}"
    if isinstance(error, ValueError) and "BuilderConfig" in str(error):
        return f"no such subset; {first_line(error)}"
    if isinstance(error, ValueError) and "Data files don't belong" in str(error):
        return "its card names files that are not in the repository"
    is_code = isinstance(error, RuntimeError) and "scripts" in str(error)
    if is_code or (isinstance(error, FileNotFoundError) and type(error).__module__.startswith("datasets")):
        return "has no readable data files; loading scripts are never run"
    if answer := _answer(error):
        status = answer.response.status_code
        return f"{host} answered with status {status}" + ("; check the token" if status in (401, 403) else "")
    absent = errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled | errors.RevisionResolutionError
    if constants.is_offline_mode() and isinstance(error, absent):
        return "not complete in the local cache (HF_HUB_OFFLINE is set); download it once with a connection"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be written to the local cache: {error.strerror}"
    return f"cannot be read from {host} ({type(error).__name__}); check the connection, HF_ENDPOINT and the token"


def where() -> str:
    """Where revisions were searched, for messages."""
    from huggingface_hub import is_offline_mode

    return " in the local cache (HF_HUB_OFFLINE is set)" if is_offline_mode() else ""
