"""Prefetching from a hub: what is pinned, what is fetched, and each fault that a hub, a line or a disk can have."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import hub_client
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer

MODEL = "lab/olmo"
PAWS = "datasets/google-research-datasets/paws"
WEIGHTS = "/model.safetensors"
SIZE = 300_000
TOKEN = "hf_NeverToBeSeenInAnyOutput"
CONFIGS = "---\nconfigs:\n" + "".join(
    f"- config_name: {name}\n  data_files:\n"
    + "".join(f"  - {{split: {split}, path: {name}/{split}-*}}\n" for split in ("train", "test"))
    for name in ("labeled_swap", "labeled_final")
)
STEPS = {"source": "hub", "repo": MODEL, "pattern": "step{step}", "steps": [1, 2]}

# Pins of steps and tasks, made now or read from `pins.json`, are fetched; what was read of the tasks is shown.
PREFETCH = """
import json, os, resource, sys, traceback
from pathlib import Path
from workflow import task
from workflow.models import checkpoints
from workflow.storage import hub
from workflow.errors import StudyError
family, steps, tasks, kept = json.loads(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]), Path(sys.argv[4])
if "LARGEST" in os.environ:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LARGEST"]),) * 2)
try:
    if kept.is_file():
        pins = json.loads(kept.read_text())
    else:
        pins = [checkpoints.pin("olmo", family, step) for step in steps] + [task.pin(name) for name in tasks]
    hub.prefetch(pins, lambda line: print(line, file=sys.stderr))
    kept.write_text(json.dumps(pins))
    rows = {name: [row["answer"] for row in task.prepared(name, None, pins[len(steps) + place])]
            for place, name in enumerate(tasks)}
    print(json.dumps({"pins": pins, "rows": rows}))
except StudyError as error:
    print(error)
    traceback.print_exc()
    sys.stdout.flush()
    os._exit(3)  # at once: a thread of the reader that is cut off in its work can abort an interpreter that ends
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a hub with a model of two steps and a dataset of two subsets; not to be changed."""
    root = tmp_path_factory.mktemp("hub")
    for step in (1, 2):
        folder = root / MODEL / f"step{step}-tokens{step}B"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(hashlib.shake_256(bytes([step])).digest(SIZE))
        (folder / "config.json").write_text(json.dumps({"step": step}))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "optimizer.pt").write_bytes(b"not needed")
    types = dict.fromkeys(("sentence1", "sentence2"), datasets.Value("string"))
    features = datasets.Features(
        {**types, "id": datasets.Value("int32"), "label": datasets.ClassLabel(names=["0", "1"])}
    )
    for place, subset in enumerate(("labeled_final", "labeled_swap")):
        for split in ("train", "test"):
            row = {"id": 1, "sentence1": "A cat sleeps.", "sentence2": f"Of {split}.", "label": place}
            path = root / PAWS / "main" / subset / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(datasets.Dataset.from_list([row], features=features).data.table, path)
    (root / PAWS / "main" / "README.md").write_text(f"{CONFIGS}---\n")
    return root


@pytest.fixture
def hub(served: Path, tmp_path: Path) -> Iterator[HubServer]:
    """A running hub whose folders may be changed."""
    with HubServer(shutil.copytree(served, tmp_path / "hub")) as server:
        yield server


class Machine(hub_client.Client):
    """A user's machine that prefetches."""

    def prefetch(
        self, steps: list[int], tasks: list[str], **settings: str
    ) -> tuple[subprocess.CompletedProcess[str], dict]:
        """Prefetch steps and tasks; the ended process, and what it shows of pins and rows when all went well."""
        kept = str(self.home / "pins.json")
        ended = self.run(PREFETCH, json.dumps(STEPS), json.dumps(steps), json.dumps(tasks), kept, **settings)
        return ended, json.loads(ended.stdout) if ended.returncode == 0 else {}

    def blobs(self) -> list[Path]:
        """The files in the cache that are whole as far as the client knows."""
        return [path for path in (self.home / "hf" / "hub").glob("*/blobs/*") if not path.name.endswith(".incomplete")]


@pytest.fixture
def machine(hub: HubServer, tmp_path: Path) -> Machine:
    """A machine that reads from that hub."""
    (tmp_path / "home").mkdir()
    return Machine(tmp_path / "home", hub.url)


def weights(hub: HubServer, step: int) -> Path:
    """The weights of a step on the hub."""
    return hub.root / MODEL / f"step{step}-tokens{step}B" / "model.safetensors"


@pytest.mark.slow
def test_commits_sizes_and_hashes_are_pinned(hub: HubServer, machine: Machine) -> None:
    ended, found = machine.prefetch([1, 2], ["paws"])
    assert ended.returncode == 0, ended.stderr
    *models, dataset = found["pins"]
    for step, pinned in zip((1, 2), models, strict=True):
        folder = weights(hub, step).parent
        assert (pinned["revision"], pinned["commit"]) == (folder.name, hub.commit(MODEL, folder.name))
        content, small = weights(hub, step).read_bytes(), (folder / "config.json").read_bytes()
        assert pinned["files"] == {
            "config.json": {"bytes": len(small), "git": git_hash(small)},
            "model.safetensors": {"bytes": SIZE, "sha256": hashlib.sha256(content).hexdigest()},
            "tokenizer.json": {"bytes": 2, "git": git_hash(b"{}")},
        }
    # The second of two subsets, whose label is 0 in every row.
    assert dataset["commit"] == hub.commit(PAWS, "main")
    rows = [f"labeled_final/{split}-00000-of-00001.parquet" for split in ("train", "test")]
    assert set(dataset["files"]) == {"README.md", *rows}
    assert found["rows"] == {"paws": ["no", "no"]}
    # The dataset's card was read in pinning it, and both steps have one and the same tokenizer.
    files = [entry for pinned in found["pins"] for entry in pinned["files"].items()]
    total = sum(stated["bytes"] for name, stated in files if name != "README.md")
    assert f"{(total - 2) / 1000:.1f} kB to download for 3 checkpoints and datasets; " in ended.stderr.splitlines()[0]


def git_hash(content: bytes) -> str:
    """Git's hash of a blob, by the program itself."""
    ended = subprocess.run(["git", "hash-object", "--stdin"], input=content, capture_output=True, check=True)
    return ended.stdout.decode().strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "data/../../outside.json", "/tmp/outside.json", "..\\outside.safetensors"]
)
def test_a_file_name_that_leads_elsewhere_is_refused(name: str, hub: HubServer, machine: Machine) -> None:
    hub.stray.append(name)
    for steps, tasks, place in (
        ([1], [], "lab/olmo at step1-tokens1B"),
        ([], ["paws"], "google-research-datasets/paws at "),
    ):
        ended, _ = machine.prefetch(steps, tasks)
        line, rest = ended.stdout.rstrip("\n"), "; allowed: names without .., backslash or a leading slash"
        assert ended.returncode == 3 and line.startswith(place) and line.endswith(f": lists a file {name!r}{rest}")
    assert not machine.blobs()


@pytest.mark.slow
def test_what_is_pinned_is_read_without_a_network_and_stays_what_it_was(hub: HubServer, machine: Machine) -> None:
    _, first = machine.prefetch([1, 2], ["paws"])
    hub.requests.clear()
    weights(hub, 1).write_bytes(b"another")
    for closed in ({"HF_ENDPOINT": "http://127.0.0.1:1"}, {"HF_HUB_OFFLINE": "1"}, {}):
        ended, again = machine.prefetch([1, 2], ["paws"], **closed)
        assert ended.returncode == 0, ended.stderr
        assert again == first
        assert ended.stderr.startswith("0 bytes to download")
    assert not [request for request in hub.requests if "agent-harnesses" not in request]


@pytest.mark.slow
def test_only_the_subset_is_read_from_an_export(hub: HubServer, machine: Machine) -> None:
    """XL-Sum is code on its own branch; what the hub made of it has a folder for each language."""
    repo = "datasets/csebuetnlp/xlsum"
    for language in ("english", "french"):
        row = {"id": language, "url": "", "title": "", "summary": f"It is {language}.", "text": "It is told at length."}
        path = hub.root / repo / "parquet" / language / "test" / "0000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(datasets.Dataset.from_list([row]).data.table, path)
    hub.tags[repo] = {"refs/convert/parquet": "parquet"}
    ended, found = machine.prefetch([], ["xlsum_english"])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert found["rows"] == {"xlsum_english": ["It is english."]}
    assert set(found["pins"][0]["files"]) == {"english/test/0000.parquet"}
    assert found["pins"][0]["commit"] == hub.commit(repo, "parquet")


# --- faults ------------------------------------------------------------------------------------------------------------

Arrange = Callable[[HubServer, Machine], dict[str, str]]


def fails(end: str, *statuses: int) -> Arrange:
    """A hub whose next answers to some requests are errors."""

    def arrange(hub: HubServer, machine: Machine) -> dict[str, str]:
        hub.failing[end] = list(statuses)
        return {}

    return arrange


def does(action: Callable[[HubServer], object], **settings: str) -> Arrange:
    """A hub that something is done to, and settings of the machine."""

    def arrange(hub: HubServer, machine: Machine) -> dict[str, str]:
        action(hub)
        return settings

    return arrange


def only_code(hub: HubServer) -> None:
    """A dataset that is a loading script."""
    shutil.rmtree(hub.root / PAWS / "main")
    (hub.root / PAWS / "main").mkdir()
    (hub.root / PAWS / "main" / "paws.py").write_text("raise SystemExit('run')")


def other_subsets(hub: HubServer) -> None:
    """A dataset without the subset that is wanted."""
    card = hub.root / PAWS / "main" / "README.md"
    card.write_text(card.read_text().replace("config_name: labeled_final", "config_name: final"))


def no_test(hub: HubServer) -> None:
    """A dataset without the split that is wanted."""
    card = hub.root / PAWS / "main" / "README.md"
    card.write_text(card.read_text().replace("split: test", "split: dev"))


def files_elsewhere(hub: HubServer) -> None:
    """A dataset whose card names files of the user's own machine."""
    own = hub.root / "own.parquet"
    shutil.copy(hub.root / PAWS / "main" / "labeled_final" / "test-00000-of-00001.parquet", own)
    card = hub.root / PAWS / "main" / "README.md"
    card.write_text(card.read_text().replace("labeled_final/test-*", str(own)))


def broken_rows(hub: HubServer) -> None:
    """A dataset whose file is cut short on the hub itself."""
    path = hub.root / PAWS / "main" / "labeled_final" / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:1000])


# What is wrong: (how, what is fetched, what the one line says; None where it is overcome).
FAULTS: dict[str, tuple[Arrange, tuple[list[int], list[str]], str | None]] = {
    "rate limit on the list of revisions": (fails("/refs", 429, 429), ([1], []), None),
    "rate limit on a list of files": (fails("B", 429), ([1], []), None),
    "rate limit on a file's head": (fails(WEIGHTS, 429), ([1], []), None),
    "rate limit on a dataset's card": (fails("/README.md", 429), ([], ["paws"]), None),
    "rate limit on a dataset's rows": (fails(".parquet", 429), ([], ["paws"]), None),
    "server error that passes": (fails("/refs", 503), ([1], []), None),
    "server error on a file that passes": (fails(WEIGHTS, 500), ([1], []), None),
    "server error that stays": (
        does(lambda hub: hub.statuses.update({"/refs": 503})), ([1], []),
        "family olmo, step 1: lab/olmo: 127.0.0.1 answered with status 503",
    ),
    "connection cut in mid-file": (does(lambda hub: hub.cuts.update({WEIGHTS: SIZE // 2})), ([1], []), None),
    "connection cut in a dataset": (
        does(lambda hub: hub.cuts.update({"/test-00000-of-00001.parquet": 700})), ([], ["paws"]), None
    ),
    "weights with a wrong checksum": (
        does(lambda hub: hub.garbled.add(WEIGHTS)), ([1], []),
        "lab/olmo at step1-tokens1B: model.safetensors: its hash differs from the one that the hub states; the file was removed",
    ),
    "small file with a wrong checksum": (
        does(lambda hub: hub.garbled.add("/config.json")), ([1], []),
        "lab/olmo at step1-tokens1B: config.json: its hash differs from the one that the hub states; the file was removed",
    ),
    "rows with a wrong checksum": (
        does(lambda hub: hub.garbled.add("/train-00000-of-00001.parquet")), ([], ["paws"]),
        "google-research-datasets/paws at main: labeled_final/train-00000-of-00001.parquet: its hash differs from the one",
    ),
    "gated repository": (
        does(lambda hub: hub.gated.update({MODEL: TOKEN})), ([1], []),
        "family olmo, step 1: lab/olmo: gated by 127.0.0.1: accept its terms there, then log in with a token",
    ),
    "gated dataset": (
        does(lambda hub: hub.gated.update({PAWS: TOKEN})), ([], ["paws"]),
        "task 'paws': google-research-datasets/paws: gated by 127.0.0.1: accept its terms there",
    ),
    "gated repository and its token": (
        does(lambda hub: hub.gated.update({MODEL: TOKEN}), HF_TOKEN=TOKEN), ([1], []), None
    ),
    "step that is not there": (
        does(lambda hub: shutil.rmtree(weights(hub, 2).parent)), ([1, 2], []),
        "family olmo, step 2: lab/olmo has no revision step2 or step2-*; nearest steps: 1",
    ),
    "repository that is not there": (
        does(lambda hub: shutil.rmtree(hub.root / MODEL)), ([1], []), "family olmo, step 1: lab/olmo: not found on 127.0.0.1"
    ),
    "dataset that is not there": (
        does(lambda hub: shutil.rmtree(hub.root / PAWS)), ([], ["paws"]),
        "task 'paws': google-research-datasets/paws: not found on 127.0.0.1",
    ),
    "subset that is not there": (
        does(other_subsets), ([], ["paws"]), "task 'paws': google-research-datasets/paws: no such subset; "
    ),
    "split that is not there": (
        does(no_test), ([], ["paws"]), "google-research-datasets/paws: has no split 'test'; allowed: train, dev"
    ),
    "dataset that is code": (
        does(only_code), ([], ["paws"]), "task 'paws': google-research-datasets/paws: has no readable data files"
    ),
    "card that names files elsewhere": (
        does(files_elsewhere), ([], ["paws"]), "task 'paws': google-research-datasets/paws: its card names files"
    ),
    "rows that are damaged on the hub": (
        does(broken_rows), ([], ["paws"]), "google-research-datasets/paws: split 'test' cannot be read: "
    ),
    "pickles": (
        does(lambda hub: weights(hub, 1).rename(weights(hub, 1).with_name("pytorch_model.bin"))), ([1], []),
        "lab/olmo at step1-tokens1B: holds pickled weights only (optimizer.pt, pytorch_model.bin); convert to safetensors",
    ),
    "hub that cannot be reached": (
        does(lambda hub: None, HF_ENDPOINT="http://127.0.0.1:1"), ([1], []),
        "family olmo, step 1: lab/olmo: cannot be read from 127.0.0.1 (ConnectError); check the connection",
    ),
    "no network and nothing in the cache": (
        does(lambda hub: None, HF_HUB_OFFLINE="1"), ([1], []),
        "family olmo, step 1: lab/olmo has no revision step1 or step1-* in the local cache (HF_HUB_OFFLINE is set)",
    ),
    "no network and no dataset in the cache": (
        does(lambda hub: None, HF_HUB_OFFLINE="1"), ([], ["paws"]),
        "task 'paws': google-research-datasets/paws: not complete in the local cache (HF_HUB_OFFLINE is set)",
    ),
    "file that cannot be written": (
        does(lambda hub: None, LARGEST=str(SIZE // 2)), ([1], []),
        "lab/olmo at step1-tokens1B: cannot be written to the local cache: File too large",
    ),
}  # fmt: skip


@pytest.mark.faults
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_overcome_or_one_line_and_the_same_command_goes_on_later(
    fault: str, hub: HubServer, machine: Machine, served: Path
) -> None:
    arrange, (steps, tasks), line = FAULTS[fault]
    settings = arrange(hub, machine)
    ended, found = machine.prefetch(steps, tasks, **settings)
    assert TOKEN not in machine.shown
    if line is not None:
        assert ended.returncode == 3, ended.stdout + ended.stderr
        assert ended.stdout.count("\n") == 1 and ended.stdout.startswith(line), ended.stdout
        mend(hub, served)
        (machine.home / "pins.json").unlink(missing_ok=True)
        ended, found = machine.prefetch(steps, tasks)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert found["rows"] == {name: ["no", "no"] for name in tasks}
    check_cache(machine)


def mend(hub: HubServer, served: Path) -> None:
    """The hub as it should be."""
    shutil.rmtree(hub.root)
    shutil.copytree(served, hub.root)
    for faults in (hub.statuses, hub.failing, hub.cuts, hub.gated, hub.garbled):
        faults.clear()


def check_cache(machine: Machine) -> None:
    """Every blob in the cache is what its name says."""
    for path in machine.blobs():
        content = path.read_bytes()
        assert path.name == (hashlib.sha256(content).hexdigest() if len(path.name) == 64 else git_hash(content))


@pytest.mark.faults
def test_a_cut_file_is_continued_from_the_last_piece_that_was_written(hub: HubServer, machine: Machine) -> None:
    """The client writes pieces of 10 MiB."""
    size, cut = 24_000_000, 15_000_000
    weights(hub, 1).write_bytes(hashlib.shake_256(b"large").digest(size))
    hub.cuts[WEIGHTS] = cut
    ended, _ = machine.prefetch([1], [])
    assert ended.returncode == 0, ended.stderr
    assert sum(sent for path, sent in hub.sent.items() if path.endswith(WEIGHTS)) == size + cut - 10 * 2**20
    check_cache(machine)


@pytest.mark.faults
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
    hub: HubServer, machine: Machine, small_disk: Path
) -> None:
    ended, _ = machine.prefetch([1, 2], [], HF_HOME=str(small_disk / "hf"))
    assert ended.returncode == 3
    assert ended.stdout.startswith(f"{small_disk}/hf/hub: ") and ended.stdout.count("\n") == 1
    assert " free, 600.0 kB to download; free space, or set HF_HOME to a larger disk" in ended.stdout
    assert not any("/resolve/" in request for request in hub.requests)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
