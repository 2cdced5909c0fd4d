"""A model hub on the loopback interface: the endpoints that `huggingface_hub` calls, answered from folders on disk."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit


class HubServer:
    """Serves models `root/<owner>/<name>/<revision>/<files>` and datasets, the same below `root/datasets`.

    A context manager that is up between enter and exit.

    Each revision folder is a branch whose commit is a hash of its files, so a changed file is a new commit. The public
    attributes may be changed while the server is up.

    url: what HF_ENDPOINT is set to; tags: repository -> {tag: revision folder}; gated: repository -> the token that
    may read it; statuses: end of a path -> the error status that it gets; cuts: end of a path -> number of bytes after
    which the connection is closed, once; failing: end of a path -> the error statuses of its next requests, a 429 with a
    second to wait; garbled: ends of paths whose files are sent with another last byte; stray: names that listings hold
    beside the files that there are; requests: `METHOD path` of each
    request so far; sent: path -> bytes of files that were sent for it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tags: dict[str, dict[str, str]] = {}
        self.gated: dict[str, str] = {}
        self.statuses: dict[str, int] = {}
        self.cuts: dict[str, int] = {}
        self.failing: dict[str, list[int]] = {}
        self.sent: Counter[str] = Counter()
        self.garbled: set[str] = set()
        self.stray: list[str] = []
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def commit(self, repo: str, revision: str) -> str | None:
        """Commit (40 hex digits) of a branch, a tag or a commit itself; None where the repository has none such."""
        commits = {path.name: _commit(path) for path in sorted((self.root / repo).iterdir())}
        named = self.tags.get(repo, {}).get(revision, revision)
        return commits.get(named, revision if revision in commits.values() else None)

    def folder(self, repo: str, commit: str) -> Path:
        """Folder that holds a commit's files."""
        return next(path for path in sorted((self.root / repo).iterdir()) if _commit(path) == commit)


def _paths(folder: Path) -> list[Path]:
    """All files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _commit(folder: Path) -> str:
    """A commit hash that stands for names and content of a revision's files."""
    digest = hashlib.sha1(folder.name.encode())
    for path in _paths(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _git_id(content: bytes) -> str:
    """Git's object id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _is_large(path: Path) -> bool:
    """Whether the hub would keep a file in large-file storage, where it is known by its SHA-256."""
    return path.suffix in (".safetensors", ".bin", ".parquet")


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; `hub` is the server's owner."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: what was asked for stands in `requests`."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        for end, status in self.hub.statuses.items():
            if path.endswith(end):
                return self._fail(status, "")
        for end in [end for end, left in self.hub.failing.items() if left and path.endswith(end)]:
            status = self.hub.failing[end].pop(0)
            return self._send(b"", {"Retry-After": "1"} if status == HTTPStatus.TOO_MANY_REQUESTS else {}, status)
        parts = path.strip("/").split("/")
        is_api = parts[0] == "api"
        parts = parts[1:] if is_api else parts
        kind = parts.pop(0) if parts[0] in ("models", "datasets") else "models"
        owner, name, *rest = [*parts, ""] if len(parts) < 2 else parts
        repo = f"datasets/{owner}/{name}" if kind == "datasets" else f"{owner}/{name}"
        if not (self.hub.root / repo).is_dir():
            return self._fail(HTTPStatus.NOT_FOUND, "RepoNotFound")
        if repo in self.hub.gated and self.headers["Authorization"] != f"Bearer {self.hub.gated[repo]}":
            return self._fail(HTTPStatus.FORBIDDEN, "GatedRepo")
        if is_api and rest == ["refs"]:
            return self._send(json.dumps(self._refs(repo)).encode())
        rest = rest or ["revision", "main"]
        if rest[1] == "refs":
            rest[1:4] = ["/".join(rest[1:4])]
        commit = self.hub.commit(repo, rest[1])
        if commit is None:
            return self._fail(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        if is_api:
            if rest[0] == "tree" and (rest[2:] or "recursive=true" not in self.path.lower()):
                return self._send_folder(repo, commit, "/".join(rest[2:]))
            answer = {"revision": self._info, "tree": self._tree, "paths-info": self._asked}[rest[0]]
            return self._send(json.dumps(answer(repo, commit)).encode())
        self._send_file(self.hub.folder(repo, commit) / "/".join(rest[2:]), commit)

    def _refs(self, repo: str) -> dict[str, list[dict[str, str]]]:
        """Body of `/api/models/<repo>/refs`."""

        def entries(kind: str, names: list[str]) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": self.hub.commit(repo, name)}
                for name in names
            ]

        branches = sorted(path.name for path in (self.hub.root / repo).iterdir())
        return {
            "branches": entries("heads", branches),
            "tags": entries("tags", list(self.hub.tags.get(repo, {}))),
            "converts": [],
        }

    def _info(self, repo: str, commit: str) -> dict[str, object]:
        """Body of `/api/models/<repo>/revision/<revision>`."""
        names = [entry["path"] for entry in self._tree(repo, commit)]
        repo = repo.removeprefix("datasets/")
        return {"id": repo, "modelId": repo, "sha": commit, "siblings": [{"rfilename": name} for name in names]}

    def _asked(self, repo: str, commit: str) -> list[dict[str, object]]:
        """Body of `/api/<kind>/<repo>/paths-info/<revision>`: the files, and the folders, that were asked for."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        is_json = "json" in self.headers.get("Content-Type", "")
        asked = json.loads(body)["paths"] if is_json else parse_qs(body)["paths"]
        entries = self._tree(repo, commit)
        folders = {parent.as_posix() for entry in entries for parent in PurePosixPath(str(entry["path"])).parents}
        found = [{"type": "directory", "path": path, "size": 0, "oid": commit} for path in asked if path in folders]
        return [*found, *(entry for entry in entries if entry["path"] in asked)]

    def _tree(self, repo: str, commit: str) -> list[dict[str, object]]:
        """Body of `/api/models/<repo>/tree/<revision>`, all levels."""
        folder = self.hub.folder(repo, commit)
        entries = []
        for path in _paths(folder):
            content = path.read_bytes()
            entry: dict[str, object] = {"type": "file", "path": path.relative_to(folder).as_posix()}
            entry |= {"size": len(content), "oid": _git_id(content)}
            if _is_large(path):
                entry["lfs"] = {"size": len(content), "oid": hashlib.sha256(content).hexdigest(), "pointerSize": 134}
            entries.append(entry)
        return [*entries, *({"type": "file", "path": name, "size": 0, "oid": _git_id(b"")} for name in self.hub.stray)]

    def _send_folder(self, repo: str, commit: str, folder: str) -> None:
        """Body of `/api/<kind>/<repo>/tree/<revision>/<folder>`: what lies in a folder, and below it if that is asked for."""
        start = f"{folder}/" if folder else ""
        below = [entry for entry in self._tree(repo, commit) if str(entry["path"]).startswith(start)]
        if not below:
            return self._fail(HTTPStatus.NOT_FOUND, "EntryNotFound")
        inner = {str(entry["path"]).removeprefix(start).split("/")[0] for entry in below}
        files = [entry for entry in below if str(entry["path"]).removeprefix(start) in inner]
        names = inner - {str(entry["path"]).removeprefix(start) for entry in files}
        folders = [{"type": "directory", "path": start + name, "size": 0, "oid": commit} for name in sorted(names)]
        shown = below if "recursive=true" in self.path.lower() else files
        self._send(json.dumps([*folders, *shown]).encode())

    def _send_file(self, path: Path, commit: str) -> None:
        """A file of `/<repo>/resolve/<revision>/<file>`, from the byte that a range asks for."""
        if not path.is_file():
            return self._fail(HTTPStatus.NOT_FOUND, "EntryNotFound")
        content = path.read_bytes()
        sent = content
        if any(self.path.endswith(end) for end in self.hub.garbled):
            sent = content[:-1] + bytes([content[-1] ^ 1])
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_git_id(content)}"'}
        if _is_large(path):
            headers |= {"X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(sent[start:], headers, HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)

    def _send(self, body: bytes, headers: Mapping[str, str] | None = None, status: int = HTTPStatus.OK) -> None:
        """Status, headers and, for GET, the body or the part of it that a cut leaves."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for end in [end for end in self.hub.cuts if self.path.endswith(end)]:
            body = body[: self.hub.cuts.pop(end)]
            self.close_connection = True
        self.wfile.write(body)
        self.hub.sent[unquote(self.path)] += len(body)

    def _fail(self, status: int, code: str) -> None:
        """An error as the hub words it."""
        self._send(b"", {"X-Error-Code": code, "X-Error-Message": code or HTTPStatus(status).phrase}, status)
