"""Measure the indicators of one base: select texts, decide what to measure again, and compute the stored sums."""

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
from workflow.settings import Base, Indicator
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

PACKAGES = ("torch", "transformers", "tokenizers")  # on which a measured number may depend
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
    """The losses of an indicator, a hash of the token ids, and further facts that must agree for values to be comparable."""

    losses: list[Loss]
    tokenization: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class LoadedBase:
    """A base and its tokenizer in memory."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class MeasuredTexts:
    """The texts of an indicator: all documents of its corpus, and tasks with their training and test rows."""

    documents: Sequence[Document]
    tasks: Tasks

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the documents, and of the rows with their prompt templates."""
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(json.dumps(document).encode())
        for name, (task, *splits) in sorted(self.tasks.items()):
            formats = prompts.formats(task) if task.kind != "messages" else ()
            words = [prompts.evaluated(task, format, "sound") for format in formats]
            digest.update(json.dumps([name, words]).encode())
            for rows in splits:
                digest.update(json.dumps([(key, repr(example)) for key, example in rows]).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class BaseMeasurements:
    """The measurements of a base: sums and losses of its indicators, and the fingerprint and manifest of each by name."""

    sums: list[dict[str, Any]] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, name: str) -> BaseMeasurements:
        """Return the measurements of one indicator."""
        sums, losses = ([row for row in table if row["indicator"] == name] for table in (self.sums, self.losses))
        return BaseMeasurements(sums, losses, {name: self.fingerprints[name]}, {name: self.manifests[name]})

    def extend(self, other: BaseMeasurements) -> None:
        """Add the measurements of other indicators."""
        self.sums.extend(other.sums)
        self.losses.extend(other.losses)
        self.fingerprints.update(other.fingerprints)
        self.manifests.update(other.manifests)


def read(sums: Path, losses: Path) -> BaseMeasurements:
    """Read the measurements of a base; empty if there are none."""
    if not (sums.is_file() and losses.is_file()):
        return BaseMeasurements()
    facts = tables.recorded(sums)
    return BaseMeasurements(tables.rows(sums), tables.rows(losses), facts["fingerprints"], facts["manifests"])


def write(part: BaseMeasurements, sums: Path, losses: Path, **facts: Any) -> None:
    """Write the measurements of a base with metadata about their origin."""
    facts |= {"fingerprints": part.fingerprints, "manifests": part.manifests}
    tables.write(part.losses, tables.MEASURED, losses, **facts)
    tables.write(part.sums, tables.INDICATORS, sums, **facts)


def material(settings: Indicator, data_root: str | None, prepared: Tasks) -> MeasuredTexts:
    """Return the texts of an indicator from a study's corpora and prepared tasks."""
    documents: list[Document] = []
    if "corpus" in settings:
        root = corpora.folder(settings, data_root)
        documents = list(corpora.documents(corpora.files(root, settings.get("domains"), settings["split"])))
    return MeasuredTexts(documents, {name: prepared[name] for name in indicators.tasks(settings)})


def update(
    before: BaseMeasurements,
    base: Base,
    blocks: Mapping[str, Indicator],
    texts_of: Callable[[Mapping[str, Any]], MeasuredTexts],
    subject: Callable[[str], LoadedBase],
    progress: Callable[[str], Progress],
) -> BaseMeasurements:
    """Return all indicators of a base: unchanged ones are kept, the others measured.

    base: its manifest; texts_of: the texts of an indicator; subject: precision -> the base in memory; progress: by indicator.
    """
    part = BaseMeasurements()
    for name, settings in blocks.items():
        texts = texts_of(settings)
        current = fingerprint(settings, base, texts)
        if before.fingerprints.get(name) == current:
            part.extend(before.of(name))
        else:
            sums, losses, manifest = measure(
                name, settings, subject(indicators.weights(settings)), texts, progress(name)
            )
            part.extend(BaseMeasurements(sums, losses, {name: current}, {name: manifest}))
    return part


def sampled(documents: Sequence[Document], settings: Indicator) -> list[Document]:
    """Return the documents of an indicator in their order: each text once, at most `documents` of them, drawn by `seed`."""
    distinct = list({document.text: document for document in reversed(documents)}.values())[::-1]
    count = settings.get("documents", len(distinct))
    if count >= len(distinct):
        return distinct
    chosen = random.Random(settings["seed"]).sample(range(len(distinct)), count)
    return [distinct[index] for index in sorted(chosen)]


def measure(
    name: str,
    settings: Indicator,
    subject: LoadedBase,
    material: MeasuredTexts,
    progress: Progress | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Measure an indicator: rows of `tables.INDICATORS`, rows of `tables.MEASURED`, and the manifest behind its hash."""
    measurement = registry.module(measures, settings["measure"]).measure(subject, settings, material, progress)
    manifest = {
        "settings": files.portable(indicators.measured(settings)),
        "material": material.fingerprint,
        "contract": indicators.CONTRACT,
        **measurement.facts,
    }
    constant = {
        "indicator": name,
        "measure": settings["measure"],
        "manifest": hashed(manifest)[:16],
        "tokenization": measurement.tokenization,
        "versions": ", ".join(f"{package} {number}" for package, number in versions().items()),
    }
    documents = [{"indicator": name, **loss._asdict()} for loss in measurement.losses]
    return [{**row, **constant} for row in sums(measurement.losses)], documents, manifest


def losses_of(
    subject: LoadedBase,
    readings: Sequence[Reading],
    places: Sequence[str],
    batch_tokens: int,
    progress: Progress | None = None,
) -> list[NDArray[np.float64]]:
    """Return the losses of readings as `engine.losses.token_losses` does; places: their names in messages.

    Errors: StudyError for a reading whose losses are not finite, with their source in the model.
    """
    from workflow.models.engine import finite, losses

    try:
        return losses.token_losses(subject.model, readings, padding(subject.tokenizer), batch_tokens, progress)
    except finite.NotFiniteError as error:
        source = finite.source(subject.model, readings[error.number].ids)
        raise StudyError(f"{places[error.number]}: {error}{source}") from error


@contextmanager
def restored(model: PreTrainedModel) -> Iterator[None]:
    """Restore a model's weights bit for bit at the end of the context."""
    before = [weight.detach().clone() for weight in model.parameters()]
    try:
        yield
    finally:
        for weight, original in zip(model.parameters(), before, strict=True):
            weight.data.copy_(original)


def sums(losses: Iterable[Loss]) -> list[dict[str, Any]]:
    """Return first and second moments about zero over the documents of each group, variant and draw, as additive sums.

    Further rows, with draw None, are the moments of each document's sums over all draws.
    """
    table = pd.DataFrame(losses, columns=Loss._fields)
    of_draws = _moments(table, KEYS)
    over_draws = _moments(
        table.groupby([*KEYS[:-1], "id"], as_index=False, sort=False)[ADDED].sum(skipna=False), KEYS[:-1]
    )
    return [*of_draws.to_dict("records"), *({**row, "draw": None} for row in over_draws.to_dict("records"))]


def _moments(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return sums over the documents of each group of rows."""
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


def fingerprint(settings: Indicator, base: Base, material: MeasuredTexts) -> str:
    """Return a hash of everything that an indicator's rows depend on; rows with the same hash are kept."""
    files = {name: file["sha256"] for name, file in base["files"].items()}
    return hashed([indicators.measured(settings), indicators.CONTRACT, files, material.fingerprint, versions()])


def hashed(facts: Any) -> str:
    """Return a hash of JSON facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of PACKAGES."""
    return {name: version(name) for name in PACKAGES}
