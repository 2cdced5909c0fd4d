"""Pre-training text: which folder, which domains, which documents, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import hub_client
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import running
from hub_server import HubServer

from workflow.data import corpora
from workflow.errors import StudyError
from workflow.planning import config_checks
from workflow.study import grid


def corpus(root: Path, **domains: list[object]) -> Path:
    """A corpus folder with the rows of each domain."""
    for name, rows in domains.items():
        (root / name).mkdir(parents=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (root / name / "train.jsonl").write_text(text, encoding="utf-8")
    return root


def refusal(call) -> str:
    """The one line of the StudyError that a call must raise."""
    with pytest.raises(StudyError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_generated_text_needs_no_data_root() -> None:
    assert corpora.folder({"corpus": "miniworld"}, None) == Path("resources/miniworld/text")
    assert corpora.folder({"corpus": "miniworld"}, "/elsewhere") == Path("resources/miniworld/text")


def test_a_relative_folder_starts_at_data_root(tmp_path: Path) -> None:
    corpus(tmp_path / "pages", books=[])
    assert corpora.folder({"corpus": "pages"}, str(tmp_path)) == tmp_path / "pages"


def test_an_absolute_folder_needs_no_data_root(tmp_path: Path) -> None:
    corpus(tmp_path / "pages", books=[])
    assert corpora.folder({"corpus": str(tmp_path / "pages")}, None) == tmp_path / "pages"
    assert corpora.folder({"corpus": str(tmp_path / "pages")}, "/elsewhere") == tmp_path / "pages"


def test_a_relative_folder_without_data_root_is_refused() -> None:
    line = refusal(lambda: corpora.folder({"corpus": "pages"}, None))
    assert line.startswith(
        "config.yaml: pretraining/corpus: 'pages' is relative to data_root, which is not set; set data_root"
    )


@pytest.mark.parametrize("path", ["../pages", "pages/../../other", ".."])
def test_a_folder_outside_data_root_is_refused(path: str, tmp_path: Path) -> None:
    inside = corpus(tmp_path / "root", pages=[]).parent / "root"
    corpus(tmp_path / "pages", books=[])
    line = refusal(lambda: corpora.folder({"corpus": path}, str(inside)))
    assert line == f"config.yaml: pretraining/corpus: {path!r} points outside data_root; expected a folder inside it"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    line = refusal(lambda: corpora.folder({"corpus": "pages"}, str(tmp_path)))
    assert line.startswith(f"{tmp_path}/pages: no such folder; expected one sub-folder for each text domain")


def test_all_domains_are_found_in_order(tmp_path: Path) -> None:
    root = corpus(tmp_path, wiki=[], books=[])
    (root / "notes").mkdir()  # no train.jsonl: not a domain
    (root / "train.jsonl").write_text("")  # not in a domain
    assert corpora.files(root, None) == [root / "books/train.jsonl", root / "wiki/train.jsonl"]


def test_named_domains_come_in_the_order_named(tmp_path: Path) -> None:
    root = corpus(tmp_path, wiki=[], books=[], code=[])
    assert corpora.files(root, ["wiki", "books"]) == [root / "wiki/train.jsonl", root / "books/train.jsonl"]


def test_an_unknown_domain_is_refused_with_those_there(tmp_path: Path) -> None:
    root = corpus(tmp_path, wiki=[], books=[])
    line = refusal(lambda: corpora.files(root, ["books", "speeches"]))
    assert line == f"{root}: no text domain 'speeches' with a train.jsonl; allowed: books, wiki"


def test_a_folder_without_domains_is_refused(tmp_path: Path) -> None:
    assert refusal(lambda: corpora.files(tmp_path, None)).startswith(
        f"{tmp_path}: no text domain; expected sub-folders"
    )
    assert refusal(lambda: corpora.files(tmp_path, ["books"])).endswith("allowed: none")


def test_documents_come_file_by_file_as_they_were_written(tmp_path: Path) -> None:
    root = corpus(
        tmp_path, books=[{"text": "Ünïcode\n日本語", "source": "x"}, {"text": " two "}], wiki=[{"text": "three"}]
    )
    found = list(corpora.documents(corpora.files(root, ["wiki", "books"])))
    assert found == [("wiki", "1", "three"), ("books", "1", "Ünïcode\n日本語"), ("books", "2", " two ")]


def test_a_document_keeps_the_id_of_its_row(tmp_path: Path) -> None:
    root = corpus(tmp_path, books=[{"text": "one", "id": "a/1"}, {"text": "two", "id": 7}])
    assert [document.id for document in corpora.documents(corpora.files(root, None))] == ["a/1", "7"]


def test_another_split_has_its_own_files(tmp_path: Path) -> None:
    root = corpus(tmp_path, wiki=[], books=[])
    (root / "wiki/validation.jsonl").write_text("")
    assert corpora.files(root, None, "validation") == [root / "wiki/validation.jsonl"]
    line = refusal(lambda: corpora.files(root, ["books"], "validation"))
    assert line == f"{root}: no text domain 'books' with a validation.jsonl; allowed: wiki"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"title": "x"}, "field 'text': found None, expected a text that is not empty"),
        ({"text": ""}, "field 'text': found '', expected a text that is not empty"),
        ({"text": 5}, "field 'text': found 5, expected a text that is not empty"),
        (["text"], "found a JSON list, expected an object"),
    ],
)
def test_a_row_without_text_is_named(row: object, reason: str, tmp_path: Path) -> None:
    paths = corpora.files(corpus(tmp_path, books=[{"text": "one"}, row]), None)
    assert refusal(lambda: list(corpora.documents(paths))) == f"{tmp_path}/books/train.jsonl, row 2: {reason}"


@pytest.mark.parametrize("line", [b'{"text": ', b"\xff\xfe"], ids=["cut", "not UTF-8"])
def test_a_line_that_is_not_json_is_named(line: bytes, tmp_path: Path) -> None:
    path = corpora.files(corpus(tmp_path, books=[{"text": "one"}]), None)[0]
    path.write_bytes(path.read_bytes() + line + b"\n")
    message = refusal(lambda: list(corpora.documents([path])))
    assert message.startswith(f"{path}, row 2: not a JSON object in UTF-8: ")


# --- from the hub --------------------------------------------------------------------------------------------------------

BLOCK = {"repo": "lab/text", "splits": {"train": "train", "validation": "dev"}, "text": "body", "domain": "meta.set"}
ROWS = {
    "train": [{"body": f"page {n}", "meta": {"set": ["RedPajamaC4", "Git Hub"][n % 2]}} for n in range(5)],
    "dev": [{"body": "Ünïcode", "meta": {"set": "Git Hub"}}],
}


def test_rows_of_the_hub_become_text_domains(tmp_path: Path) -> None:
    counts = corpora.collect("web", BLOCK, ROWS.__getitem__, tmp_path)
    assert counts == {("redpajamac4", "train"): 3, ("git-hub", "train"): 2, ("git-hub", "validation"): 1}
    assert corpora.files(tmp_path, None) == [tmp_path / "git-hub/train.jsonl", tmp_path / "redpajamac4/train.jsonl"]
    found = list(corpora.documents(corpora.files(tmp_path, None)))
    assert found[0] == ("git-hub", "train/2", "page 1") and len(found) == 5
    assert list(corpora.documents(corpora.files(tmp_path, None, "validation"))) == [("git-hub", "dev/1", "Ünïcode")]


def test_a_corpus_without_domains_is_one(tmp_path: Path) -> None:
    block = {key: value for key, value in BLOCK.items() if key != "domain"} | {"documents": 2}
    assert corpora.collect("web", block, ROWS.__getitem__, tmp_path) == {("web", "train"): 2, ("web", "validation"): 1}


@pytest.mark.parametrize(
    ("row", "field"), [({"body": "", "meta": {"set": "x"}}, "body"), ({"body": "x", "meta": None}, "meta.set")]
)
def test_a_row_of_the_hub_without_text_or_domain_is_named(row: dict, field: str, tmp_path: Path) -> None:
    line = refusal(lambda: corpora.collect("web", BLOCK, lambda split: [*ROWS["train"], row], tmp_path))
    assert line.startswith(f"corpus web: lab/text train, row 6: field {field!r}: found ")


def hub_study(**changes: object) -> dict:
    """A study whose family and indicator read a corpus of the hub."""
    family = {"source": "trained", "pretraining": {"corpus": "hub:web", "save": [1]}}
    return {
        "corpora": {"web": {"repo": "lab/text", "domain": "meta.set"}},
        "families": {"f": family},
        "suites": {"s": {"tests": ["mini_facts"]}},
        "indicators": {"ppl": {"measure": "clm", "corpus": "hub:web"}},
    } | changes


@pytest.mark.slow
def test_a_corpus_of_the_hub_is_collected_before_it_is_read(tmp_path: Path) -> None:
    assert grid.collected(config_checks.read(hub_study())) == ["web"]
    jobs = running.planned(running.lay_out(tmp_path, hub_study()), "results/indicators.parquet")
    assert jobs == {"pin_corpus": 1, "collect": 1, "pretrain": 1, "fetch": 1, "measure": 1, "gather": 1}


def test_an_unknown_corpus_of_the_hub_is_refused() -> None:
    unknown = {"ppl": {"measure": "clm", "corpus": "hub:wbe"}}
    assert refusal(lambda: config_checks.read(hub_study(indicators=unknown))) == (
        "config.yaml: indicators/ppl/corpus: 'wbe' is not known; allowed: web; did you mean 'web'?"
    )
    split = {"ppl": {"measure": "clm", "corpus": "hub:web", "split": "test"}}
    assert refusal(lambda: config_checks.read(hub_study(indicators=split))) == (
        "config.yaml: indicators/ppl/split: 'test' is not known; allowed: train, validation"
    )


COLLECT = """
import json, sys
from pathlib import Path
from workflow.data import corpora
from workflow.storage import hub
block = json.loads(sys.argv[1])
pinned = corpora.pin("web", block)
corpora.collect("web", block, lambda split: hub.rows(pinned, split), Path(sys.argv[2]))
print(pinned["commit"])
"""


@pytest.mark.slow
def test_a_corpus_is_read_from_a_hub(tmp_path: Path) -> None:
    """By the real client from a local server, Parquet files with a column within a column."""
    root = tmp_path / "hub"
    folder = root / "datasets/lab/text/main"
    folder.mkdir(parents=True)
    for split, there in (("train", "train"), ("dev", "validation")):
        pq.write_table(pa.Table.from_pylist(ROWS[split]), folder / f"{there}-00000-of-00001.parquet")
    (folder / "README.md").write_text("A corpus.\n")
    block = BLOCK | {"splits": {"train": "train", "validation": "validation"}}
    with HubServer(root) as server:
        machine = hub_client.Client(tmp_path / "home", server.url)
        ended = machine.run(COLLECT, json.dumps(block), str(tmp_path / "out"))
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.strip() == server.commit("datasets/lab/text", "main")
    texts = {document.text for document in corpora.documents(corpora.files(tmp_path / "out", None))}
    assert texts == {row["body"] for row in ROWS["train"]}
    assert corpora.files(tmp_path / "out", None, "validation") == [tmp_path / "out/git-hub/validation.jsonl"]
