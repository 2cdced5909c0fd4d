"""What leaves a lab (tuned models, tables, reports) holds no file from elsewhere and no path of the machine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from workflow.errors import StudyError
from workflow.models import checkpoints, loading
from workflow.storage import files

FAMILY = {"source": "folder", "path": "steps", "pattern": "step{step}", "steps": "all"}
SECRET = "not for the eyes of others"


@pytest.fixture
def step(checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint in a family's folder, and beside the family a file that is none of its business."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text(SECRET)
    return shutil.copytree(checkpoints["olmo"].path, tmp_path / "steps" / "step10")


def located(step: Path) -> dict[str, object]:
    return checkpoints.locate("mine", FAMILY, 10, Path("steps/step10"))


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer.model", "config.json", "model.safetensors", "merges.txt", "chat_template.jinja"),
        *("special_tokens_map.json", "processor_config.json", "further.safetensors"),
    ],
)
def test_a_link_out_of_the_folder_is_refused(name: str, step: Path) -> None:
    (step / name).unlink(missing_ok=True)
    (step / name).symlink_to("../../secret")
    for look in (
        lambda: located(step),
        lambda: checkpoints.files("mine", FAMILY, 10),
        lambda: checkpoints.checkpoint_files(str(step)),
    ):
        with pytest.raises(StudyError) as caught:
            look()
        line = f"steps/step10/{name}: a link that leaves the folder of the checkpoint; expected the file itself"
        assert str(caught.value).endswith(line)


def test_a_folder_of_templates_is_no_way_out(step: Path) -> None:
    (step / "additional_chat_templates").symlink_to("../..")
    with pytest.raises(StudyError, match="additional_chat_templates: a link that leaves the folder"):
        located(step)
    (step / "additional_chat_templates").unlink()
    (step / "additional_chat_templates").mkdir()
    (step / "additional_chat_templates" / "tool.jinja").symlink_to("../../../secret")
    with pytest.raises(StudyError, match=r"tool\.jinja: a link that leaves the folder"):
        located(step)


def test_links_within_the_folder_and_to_the_folder_are_as_good_as_files(step: Path) -> None:
    (step / "model.safetensors").rename(step / "weights.bin")
    (step / "model.safetensors").symlink_to("weights.bin")
    elsewhere = step.rename(step.parents[1] / "elsewhere")
    step.symlink_to(elsewhere)
    assert "model.safetensors" in located(step)["files"]


def test_a_snapshot_of_the_hub_s_cache_links_to_its_blobs(step: Path) -> None:
    """The cache's layout: models--lab--olmo/snapshots/<commit>/config.json -> ../../blobs/<hash>."""
    place = step.parents[1] / "models--lab--olmo"
    (place / "blobs").mkdir(parents=True)
    (place / "snapshots" / "step10").mkdir(parents=True)
    for number, path in enumerate(sorted(step.iterdir())):
        path.rename(place / "blobs" / str(number))
        (place / "snapshots" / "step10" / path.name).symlink_to(f"../../blobs/{number}")
    family = FAMILY | {"path": str(place / "snapshots")}
    assert (
        "model.safetensors" in checkpoints.locate("mine", family, 10, checkpoints.folder("mine", family, 10))["files"]
    )
    (place / "snapshots" / "step10" / "merges.txt").symlink_to("../../../secret")
    with pytest.raises(StudyError, match=r"merges\.txt: a link that leaves the folder"):
        checkpoints.locate("mine", family, 10, checkpoints.folder("mine", family, 10))


def test_what_is_no_regular_file_is_left_aside(step: Path, tmp_path: Path) -> None:
    """A pipe would be waited for, a folder or a dangling link cannot be read; none of them is copied."""
    os.mkfifo(step / "merges.txt")
    (step / "vocab.json").mkdir()
    (step / "notes.md").symlink_to("../../secret")  # nothing that transformers looks for
    base = located(step)
    assert not {"merges.txt", "vocab.json", "notes.md"} & set(base["files"])
    model, tokenizer = loading.untouched(base)
    lineage = {"family": "mine", "step": 10, "train": "rte", "format": "default", "recipe": "full", "seed": 0}
    settings = {"method": "full", "learning_rate": 1e-3}
    lineage |= {"recipe_settings": settings, "base": checkpoints.identity(base), "examples": 1, "dropped": 0}
    loading.save(model, tokenizer, tmp_path / "tuned", lineage)
    made = [path for path in (tmp_path / "tuned").rglob("*") if path.is_file()]
    assert len(made) > 4
    for path in made:
        assert not path.is_symlink() and SECRET.encode() not in path.read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes(), path


def test_a_tokenizer_s_settings_name_no_file_to_copy(step: Path, tmp_path: Path) -> None:
    """`vocab_file` and the like in tokenizer_config.json, as old checkpoints have them, are not followed."""
    path = step / "tokenizer_config.json"
    names = (
        "vocab_file",
        "merges_file",
        "tokenizer_file",
        "added_tokens_file",
        "special_tokens_map_file",
        "chat_template_file",
    )
    path.write_text(json.dumps(json.loads(path.read_text()) | dict.fromkeys(names, str(tmp_path / "secret"))))
    _, tokenizer = loading.untouched(located(step))
    tokenizer.save_pretrained(tmp_path / "tuned")
    assert not [path for path in (tmp_path / "tuned").iterdir() if SECRET.encode() in path.read_bytes()]


def test_a_name_with_control_characters_is_refused_before_snakemake_prints_it(step: Path) -> None:
    (step / "x\x1b[2J.safetensors").write_bytes(b"")
    with pytest.raises(StudyError, match=r"x\\x1b\[2J\.safetensors: control characters in a file's name"):
        checkpoints.files("mine", FAMILY, 10)


def test_settings_that_are_passed_on_keep_of_a_whole_path_its_name() -> None:
    settings = {
        "data_root": "/home/ann/rows",
        "families": {"a": {"path": "/scratch/ann/run7", "steps": [1, 2]}, "b": {"path": "runs/7"}},
        "suites": [{"corpus": "/home/ann/text"}, "4/5", None, 0.5],
    }
    assert files.portable(settings) == {
        "data_root": "rows",
        "families": {"a": {"path": "run7", "steps": [1, 2]}, "b": {"path": "runs/7"}},
        "suites": [{"corpus": "text"}, "4/5", None, 0.5],
    }
