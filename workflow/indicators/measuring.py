"""Measuring indicators on one base: what is read, what has to be measured anew, and the sums that are kept."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from workflow import registry
from workflow.data import corpora, prompts
from workflow.data.corpora import Document
from workflow.data.demonstrations import Rows
from workflow.errors import StudyError
from workflow.indicators import measures
from workflow.models.encoding import padding
from workflow.storage import files, tables
from workflow.study import indicators
from workflow.task import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from workflow.models.engine.losses import Reading

Progress = Callable[[int, int], None]
Tasks = Mapping[str, tuple[Task, Rows, Rows]]

PACKAGES = ("torch", "transformers", "tokenizers")  # that a measured number may depend on
KEYS = ["corpus", "group", "variant", "draw"]
ADDED = ["tokens", "bytes", "nll"]


class Loss(NamedTuple):
    """The loss of one document in one draw; the columns of `tables.MEASURED` but for `indicator`."""

    corpus: str
    group: str
    variant: str
    draw: int
    id: str
    tokens: int
    bytes: int
    nll: float


class Measurement(NamedTuple):
    """The losses of an indicator, a hash of the token ids that were read, and what else the rows must share to compare."""

    losses: list[Loss]
    tokenization: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """A base in memory."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Material:
    """What an indicator reads: documents of its corpus (all of them), tasks with their training and test rows."""

    documents: Sequence[Document]
    tasks: Tasks

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the texts, and of the rows with the words that make prompts of them."""
        found = hashlib.sha256()
        for document in self.documents:
            found.update(json.dumps(document).encode())
        for name, (task, *splits) in sorted(self.tasks.items()):
            formats = prompts.formats(task) if task.kind != "messages" else ()
            words = [prompts.evaluated(task, format, "sound") for format in formats]
            found.update(json.dumps([name, words]).encode())
            for rows in splits:
                found.update(json.dumps([(key, repr(example)) for key, example in rows]).encode())
        return found.hexdigest()


@dataclass(frozen=True)
class Part:
    """What is known of a base: sums and losses of its indicators, and by name the fingerprint and manifest of each."""

    sums: list[dict[str, Any]] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, name: str) -> Part:
        """What is known of one indicator."""
        rows = [[row for row in table if row["indicator"] == name] for table in (self.sums, self.losses)]
        return Part(*rows, {name: self.fingerprints[name]}, {name: self.manifests[name]})

    def extend(self, other: Part) -> None:
        """Take over what another part knows of other indicators."""
        self.sums.extend(other.sums)
        self.losses.extend(other.losses)
        self.fingerprints.update(other.fingerprints)
        self.manifests.update(other.manifests)


def read(sums: Path, losses: Path) -> Part:
    """The part of a base as it was written; an empty one where there is none."""
    if not (sums.is_file() and losses.is_file()):
        return Part()
    facts = tables.recorded(sums)
    return Part(tables.rows(sums), tables.rows(losses), facts["fingerprints"], facts["manifests"])


def write(part: Part, sums: Path, losses: Path, **facts: Any) -> None:
    """Write the part of a base, with facts about how it was made."""
    facts |= {"fingerprints": part.fingerprints, "manifests": part.manifests}
    tables.write(part.losses, tables.MEASURED, losses, **facts)
    tables.write(part.sums, tables.INDICATORS, sums, **facts)


def material(settings: Mapping[str, Any], data_root: str | None, prepared: Tasks) -> Material:
    """What an indicator reads, of a study's corpora and prepared tasks."""
    documents: list[Document] = []
    if "corpus" in settings:
        root = corpora.folder(settings, data_root)
        documents = list(corpora.documents(corpora.files(root, settings.get("domains"), settings["split"])))
    return Material(documents, {name: prepared[name] for name in indicators.tasks(settings)})


def update(
    before: Part,
    base: Mapping[str, Any],
    blocks: Mapping[str, Mapping[str, Any]],
    found: Callable[[Mapping[str, Any]], Material],
    subject: Callable[[str], Subject],
    progress: Callable[[str], Progress],
) -> Part:
    """All indicators of a base: rows of what has not changed are kept, the others measured.

    base: its manifest; found: what an indicator reads; subject: the base in memory, by precision; progress: by indicator.
    """
    part = Part()
    for name, settings in blocks.items():
        material = found(settings)
        current = fingerprint(settings, base, material)
        if before.fingerprints.get(name) == current:
            part.extend(before.of(name))
        else:
            sums, losses, manifest = measure(
                name, settings, subject(indicators.weights(settings)), material, progress(name)
            )
            part.extend(Part(sums, losses, {name: current}, {name: manifest}))
    return part


def sampled(documents: Sequence[Document], settings: Mapping[str, Any]) -> list[Document]:
    """The documents that an indicator is measured on, in their order: each text once, at most `documents`, drawn by `seed`."""
    distinct = list({document.text: document for document in reversed(documents)}.values())[::-1]
    count = settings.get("documents", len(distinct))
    if count >= len(distinct):
        return distinct
    chosen = random.Random(settings["seed"]).sample(range(len(distinct)), count)
    return [distinct[place] for place in sorted(chosen)]


def measure(
    name: str, settings: Mapping[str, Any], subject: Subject, material: Material, progress: Progress | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """An indicator of a base: rows of `tables.INDICATORS`, rows of `tables.MEASURED`, and the manifest behind its hash."""
    found = registry.module(measures, settings["measure"]).measure(subject, settings, material, progress)
    manifest = {
        "settings": files.portable(indicators.measured(settings)),
        "material": material.fingerprint,
        "contract": indicators.CONTRACT,
        **found.facts,
    }
    constant = {
        "indicator": name,
        "measure": settings["measure"],
        "manifest": hashed(manifest)[:16],
        "tokenization": found.tokenization,
        "versions": ", ".join(f"{package} {number}" for package, number in versions().items()),
    }
    documents = [{"indicator": name, **loss._asdict()} for loss in found.losses]
    return [{**row, **constant} for row in sums(found.losses)], documents, manifest


def losses_of(
    subject: Subject,
    readings: Sequence[Reading],
    places: Sequence[str],
    batch_tokens: int,
    progress: Progress | None = None,
) -> list[NDArray[np.float64]]:
    """The losses of readings, as `engine.losses.token_losses` gives them; places: what each is called in a message.

    Errors: StudyError for a reading whose losses are not finite, with where in the model that comes from.
    """
    from workflow.models.engine import finite, losses

    try:
        return losses.token_losses(subject.model, readings, padding(subject.tokenizer), batch_tokens, progress)
    except finite.NotFiniteError as error:
        source = finite.source(subject.model, readings[error.number].ids)
        raise StudyError(f"{places[error.number]}: {error}{source}") from error


@contextmanager
def restored(model: PreTrainedModel) -> Iterator[None]:
    """Give a model its weights back in the end, to the bit."""
    before = [weight.detach().clone() for weight in model.parameters()]
    try:
        yield
    finally:
        for weight, kept in zip(model.parameters(), before, strict=True):
            weight.data.copy_(kept)


def sums(losses: Iterable[Loss]) -> list[dict[str, Any]]:
    """Additive sums over the documents of each group, variant and draw, and of each document's sums over all draws.

    First and second moments about zero; the sums over all draws have draw None.
    """
    table = pd.DataFrame(losses, columns=Loss._fields)
    of_draws = _moments(table, KEYS)
    over_draws = _moments(
        table.groupby([*KEYS[:-1], "id"], as_index=False, sort=False)[ADDED].sum(skipna=False), KEYS[:-1]
    )
    return [*of_draws.to_dict("records"), *({**row, "draw": None} for row in over_draws.to_dict("records"))]


def _moments(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Sums over the documents of each group of rows."""
    products = {
        f"{one}_{other}": table[one].astype(float) * table[other]
        for one, other in (
            ("nll", "nll"),
            ("nll", "tokens"),
            ("tokens", "tokens"),
            ("nll", "bytes"),
            ("bytes", "bytes"),
        )
    }
    whole = table.assign(documents=1, **products)
    columns = ["documents", *ADDED, *products]
    return whole.groupby(keys, as_index=False, sort=False)[columns].sum(skipna=False)


def fingerprint(settings: Mapping[str, Any], base: Mapping[str, Any], material: Material) -> str:
    """Hash of all that an indicator's rows depend on; while it stays they are kept."""
    files = {name: file["sha256"] for name, file in base["files"].items()}
    return hashed([indicators.measured(settings), indicators.CONTRACT, files, material.fingerprint, versions()])


def hashed(facts: Any) -> str:
    """Hash of facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of the packages that a measured number may depend on."""
    return {name: version(name) for name in PACKAGES}
