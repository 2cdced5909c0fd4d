"""Columns of all tables of a study, and functions that read and write them.

Keys that are in a part's path (hive style) are not repeated inside the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workflow.errors import StudyError, first_line
from workflow.storage import checksums
from workflow.storage.files import whole

PIECE = 2**18  # rows that a long table is written and read at a time
RECORDED_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "peft", "pyarrow")


def _columns(**types: pa.DataType | tuple[pa.DataType, str]) -> pa.Schema:
    """Schema from `name=(type, description)`; the descriptions are stored in the file."""
    return pa.schema([pa.field(name, kind, metadata={"description": text}) for name, (kind, text) in types.items()])


TEXT, TEXTS, INT, FLOAT, FLOATS = pa.string(), pa.list_(pa.string()), pa.int64(), pa.float64(), pa.list_(pa.float64())

EXAMPLES = _columns(
    id=(TEXT, "split and row key"),
    split=(TEXT, "split of the dataset"),
    fields=(pa.map_(TEXT, TEXT), "values of the fields that the prompt templates use"),
    choices=(TEXTS, "label words or answer options; empty for free text"),
    leads=(TEXTS, "text before each choice that is read but not scored"),
    answer=(TEXT, "reference answer"),
    gold=(pa.int32(), "index of the answer among the choices; null for free text"),
    turns=(pa.list_(pa.struct([("role", TEXT), ("content", TEXT)])), "the turns of a conversation; empty elsewhere"),
)

KEYS = _columns(
    family=(TEXT, "family"),
    step=(INT, "training step of the base"),
    train=(TEXT, "fine-tuning task; none for the untouched base"),
    format=(TEXT, "prompt format of the fine-tuning; none for the untouched base"),
    recipe=(TEXT, "recipe of the fine-tuning; none for the untouched base"),
    seed=(INT, "seed of the fine-tuning"),
    suite=(TEXT, "suite"),
)

# Key columns of other tables.
OTHER_KEYS = _columns(
    analysis=(TEXT, "analysis: a module of workflow/analysis/analyses"),
    cohort=(TEXT, "cohort of bases that are forecast"),
    split=(TEXT, "how bases are split into those for fitting and those to forecast"),
)

HISTORY = _columns(
    update=(INT, "optimizer step of the fine-tuning"),
    loss=(FLOAT, "mean over the batch's examples of the mean loss over their target tokens, nats"),
    learning_rate=(FLOAT, "learning rate of this step"),
    gradient_norm=(FLOAT, "gradient norm before clipping"),
    tokens=(INT, "prompt and completion tokens seen so far"),
    seconds=(FLOAT, "wall time so far, without the pauses of a killed run"),
)

TRIALS = _columns(
    learning_rate=(FLOAT, "learning rate that was tried"),
    id=(TEXT, "validation row: a row of the training split that is left out of training"),
    tokens=(INT, "target tokens"),
    nll=(FLOAT, "summed negative log-likelihood of the target tokens, nats; null if the fine-tuning diverged"),
    loss=(FLOAT, "negative log-likelihood of a target token, nats; null if the fine-tuning diverged"),
)

CHOICES = _columns(
    rate=(INT, "index of the learning rate in the recipe's list, from 0"),
    learning_rate=(FLOAT, "learning rate that was tried"),
    loss=(FLOAT, "loss averaged over the trials' bases, then over validation rows; null if a trial diverged"),
    error=(FLOAT, "standard error of the loss over resampled validation rows"),
    low=(FLOAT, "lower end of the interval over resampled validation rows"),
    high=(FLOAT, "upper end of the interval"),
    n=(INT, "validation rows"),
    diverged=(pa.bool_(), "whether a trial with this rate diverged (loss not finite)"),
    chosen=(pa.bool_(), "whether models are fine-tuned with this rate"),
)

PREDICTIONS = _columns(
    test=(TEXT, "task"),
    test_format=(TEXT, "prompt format"),
    shots=(INT, "number of demonstrations requested"),
    id=(TEXT, "row of the task"),
    prompt_sha256=(TEXT, "hash of the rendered prompt"),
    prompt_tokens=(INT, "tokens of the rendered prompt"),
    shots_used=(INT, "number of demonstrations that fit into the prompt"),
    shown=(TEXTS, "rows that are the demonstrations of this prompt, in order"),
    truncated=(pa.bool_(), "whether the beginning of an input field was cut off"),
    cut_tokens=(INT, "tokens cut off at the beginning of the prompt, from demonstrations and input fields"),
    spanning=(
        pa.bool_(),
        "whether a token spans the end of the prompt and the beginning of a candidate; null for free text",
    ),
    output=(TEXT, "predicted label, choice or text"),
    reference=(TEXT, "reference answer"),
    choices=(TEXTS, "candidates; empty for free text"),
    gold=(pa.int32(), "index of the reference among the candidates; null for free text"),
    logprobs=(FLOATS, "log-probability of each candidate given the prompt, nats; empty for free text"),
    candidate_tokens=(pa.list_(INT), "scored tokens of each candidate"),
    output_tokens=(INT, "number of generated tokens; null if none were generated"),
    priors=(FLOATS, "log-probability of each label after a prompt without content, nats; empty if not computed"),
    free_output=(TEXT, "unconstrained greedy text, if the output was constrained to a label; else null"),
)

ITEMS = _columns(
    test=(TEXT, "task"),
    test_format=(TEXT, "prompt format"),
    shots=(INT, "number of demonstrations requested"),
    metric=(TEXT, "metric whose mean over rows is the score"),
    id=(TEXT, "row of the task"),
    value=(FLOAT, "value for this row"),
)

SCORES = _columns(
    test=(TEXT, "task"),
    test_format=(TEXT, "prompt format"),
    shots=(INT, "number of demonstrations requested"),
    metric=(TEXT, "metric"),
    value=(FLOAT, "the score"),
    error=(FLOAT, "standard error of the score over rows"),
    low=(FLOAT, "lower end of the confidence interval over rows"),
    high=(FLOAT, "upper end of the interval"),
    n=(INT, "scored rows"),
    primary=(pa.bool_(), "whether this is the metric of the test that analyses, figures and audits use"),
    better=(TEXT, "whether higher or lower values of the metric are better; null for neither"),
    part_of=(TEXT, "mean over several tests that includes this test, such as mmlu; else null"),
    tokens=(FLOAT, "pre-training tokens up to the base's step; null if unknown"),
)

# Columns that a reader of released scores fills; `score_rows` adds the rest.
IMPORTED = pa.schema(
    [*KEYS, *(field for field in SCORES if field.name not in ("primary", "better", "part_of", "tokens"))]
)

RELEASED = _columns(
    file=(TEXT, "file of results, relative to the folder of the import"),
    model=(TEXT, "model that the file names, with its revision"),
    family=(TEXT, "family, from the study's patterns"),
    step=(INT, "training step, from the study's patterns"),
    tokens=(FLOAT, "pre-training tokens up to that step; null if unknown"),
    seed=(INT, "seed, from the study's patterns"),
    shots=(TEXT, "numbers of demonstrations stated in the file"),
    scores=(INT, "number of scores that are used"),
    remark=(TEXT, "kind of remark: `mismatch`, `repeated`, `skipped` or `other`; null if there is none"),
    evidence=(TEXT, "the remark in one sentence"),
)

ANALYSIS = _columns(
    group=(TEXT, "group that the value is averaged over or compared in; null for a single pair of task and test"),
    family=(TEXT, "family"),
    step=(INT, "training step of the base, for a forecast the later step; null if pooled over steps"),
    train=(TEXT, "fine-tuning task; null if pooled"),
    format=(TEXT, "prompt format of the fine-tuning"),
    recipe=(TEXT, "recipe of the fine-tuning"),
    suite=(TEXT, "suite"),
    test=(TEXT, "test; null if pooled"),
    test_format=(TEXT, "prompt format of the test"),
    shots=(INT, "demonstrations"),
    estimator=(TEXT, "name of the estimate; it decides what is resampled for the interval"),
    value=(FLOAT, "the estimate"),
    low=(FLOAT, "lower end of the confidence interval at the study's level; for a forecast, of an 80 % interval"),
    high=(FLOAT, "upper end of the interval; null if there is none"),
    n=(INT, "number of units that the interval is over"),
    p_value=(
        FLOAT,
        "two-sided p-value against no difference, from the margins of the interval; null if the error is 0 or unknown",
    ),
    seed_variance=(
        pa.bool_(),
        "whether the interval includes the variance between fine-tuning seeds; false if no fine-tuning has two seeds; null "
        "if nothing was fine-tuned",
    ),
)

MEASURED = _columns(
    indicator=(TEXT, "indicator"),
    corpus=(TEXT, "text, by its name in the config, or task"),
    group=(TEXT, "text domain, or task"),
    variant=(TEXT, "kind of loss: see the module of the indicator's measure"),
    draw=(INT, "index of the mask, noise, fine-tuning or set of demonstrations, from 0"),
    id=(TEXT, "document, or row of the task"),
    tokens=(INT, "scored tokens"),
    bytes=(INT, "UTF-8 bytes of the scored tokens"),
    nll=(FLOAT, "summed negative log-likelihood of the scored tokens, nats; for variants that compare, its change"),
)

INDICATORS = _columns(
    indicator=(TEXT, "indicator"),
    measure=(TEXT, "what is measured: a module of workflow/indicators/measures"),
    corpus=(TEXT, "text, by its name in the config, or task"),
    group=(TEXT, "text domain, or task"),
    variant=(TEXT, "kind of loss: see the module of the indicator's measure"),
    draw=(
        INT,
        "index of the mask, noise, fine-tuning or set of demonstrations; null: documents summed over all draws",
    ),
    documents=(INT, "documents, or rows of the task"),
    tokens=(INT, "scored tokens"),
    bytes=(INT, "UTF-8 bytes of the scored tokens"),
    nll=(FLOAT, "summed negative log-likelihood of the scored tokens, nats; for variants that compare, its change"),
    nll_nll=(FLOAT, "sum over documents of the squared nll; this and the next four give standard errors"),
    nll_tokens=(FLOAT, "sum over documents of nll times tokens"),
    tokens_tokens=(FLOAT, "sum over documents of squared tokens"),
    nll_bytes=(FLOAT, "sum over documents of nll times bytes"),
    bytes_bytes=(FLOAT, "sum over documents of squared bytes"),
    manifest=(TEXT, "hash of settings, texts and prompts: rows of one indicator are comparable if it is equal"),
    tokenization=(TEXT, "hash of the token ids: losses per token are comparable if it is equal"),
    versions=(TEXT, "versions of the packages used"),
)

FORGETTING = _columns(
    indicator=(TEXT, "indicator, measured on the base and on the model fine-tuned from it"),
    group=(TEXT, "text domain, or task; null for all together"),
    base=(FLOAT, "loss of the base, bits per byte"),
    tuned=(FLOAT, "loss of the fine-tuned model, mean over its seeds"),
    value=(FLOAT, "loss of the fine-tuned model minus that of the base, bits per byte; above 0 the model forgot"),
    low=(FLOAT, "lower end of the confidence interval over documents, or rows of the task"),
    high=(FLOAT, "upper end of the interval; null for fewer than two documents"),
    n=(INT, "documents, or rows of the task"),
    seeds=(INT, "fine-tuning seeds; the interval is for these"),
    p_value=(FLOAT, "two-sided p-value against no change, from the margins of the interval; null without an interval"),
)

PAIRS = _columns(
    target=(TEXT, "target"),
    first=(TEXT, "base that comes first in the table"),
    second=(TEXT, "base that comes later in the table"),
    difference=(FLOAT, "target of the first minus target of the second"),
    gap=(TEXT, "fifth of the target's pairs by absolute difference; gap_1 has the smallest"),
    shared=(TEXTS, "config fields with equal values"),
    twins=(pa.bool_(), "whether both are the same model: nearly equal in all indicators and targets"),
    same_unit=(
        pa.bool_(),
        "whether both belong to one unit: twins, or one pre-training run in a cohort of several runs",
    ),
)

FORECASTS = _columns(
    forecaster=(TEXT, "indicator, combination, config field or model that prefers one base to another; chance"),
    kind=(TEXT, "chance, field, config (all fields), indicator, combination, comparer (of indicators), both"),
    source=(TEXT, "target that the forecaster was fitted on; null if nothing is fitted"),
    target=(TEXT, "target that is forecast"),
    subset=(TEXT, "subset of pairs: all, a gap, same_F, only_F or a contrast"),
    ties=(TEXT, "tie rule: gt, strict or half"),
    accuracy=(FLOAT, "share of the pairs in which the better base is preferred"),
    sd=(FLOAT, "standard deviation of the accuracy over the rounds of the split; null for a single round"),
    low=(
        FLOAT,
        "lower end of the interval over resampled bases; for chance over random orders; null with few bases or equal resamples",
    ),
    high=(FLOAT, "upper end of the interval"),
    gain=(FLOAT, "accuracy minus that of all config fields together, fitted on the target"),
    gain_low=(FLOAT, "lower end of the interval of the gain over resampled bases"),
    gain_high=(FLOAT, "upper end of the interval of the gain"),
    n_pairs=(INT, "number of different pairs"),
    n_bases=(INT, "number of units in these pairs, which are resampled: bases (twins as one) or pre-training runs"),
    joint_low=(
        FLOAT,
        "lower end of an interval that holds for all indicators and their means simultaneously; null for other forecasters "
        "and for combinations chosen on the targets",
    ),
    joint_high=(FLOAT, "upper end of that interval"),
    p_value=(FLOAT, "two-sided p-value of the accuracy against .5, corrected for all indicators and their means"),
    gain_joint_low=(FLOAT, "lower end of such a simultaneous interval of the gain"),
    gain_joint_high=(FLOAT, "upper end of that interval"),
    gain_p_value=(FLOAT, "two-sided p-value of the gain against 0, corrected for all indicators and their means"),
    lead=(FLOAT, "accuracy minus that of the best single indicator on the same pairs"),
    lead_low=(FLOAT, "lower end of the interval of the lead over units"),
    lead_high=(FLOAT, "upper end of the interval of the lead"),
    lead_p_value=(FLOAT, "two-sided p-value of the lead against 0"),
    chosen_on_targets=(pa.bool_(), "whether the config marks the combination as chosen on the targets"),
)

RANKINGS = _columns(
    forecaster=(TEXT, "as in the forecasts"),
    kind=(TEXT, "as in the forecasts"),
    source=(TEXT, "target that the forecaster was fitted on; null if nothing is fitted"),
    target=(TEXT, "target that bases are ranked for"),
    statistic=(TEXT, "recall_of_best, recall_of_top_five, regret, shortlist, longest_shortlist"),
    k=(INT, "length of the shortlist that a recall is for; null elsewhere"),
    value=(FLOAT, "mean over the rounds of the split; for longest_shortlist the maximum"),
    sd=(FLOAT, "standard deviation over rounds; null for a single round"),
    low=(FLOAT, "lower quantile over rounds"),
    high=(FLOAT, "upper quantile over rounds"),
    n=(INT, "rounds"),
)

IMPORTANCE = _columns(
    forecaster=(TEXT, "LightGBM on indicators (lightgbm), or on config fields and indicators"),
    source=(TEXT, "target that it was fitted on"),
    column=(TEXT, "indicator or config field"),
    value=(FLOAT, "share of the column in the gain of all splits of the trees, mean over fits"),
    sd=(FLOAT, "standard deviation over fits"),
    low=(FLOAT, "lower quantile over fits"),
    high=(FLOAT, "upper quantile over fits"),
    n=(INT, "fits"),
)

SELECTION = _columns(
    family=(TEXT, "family of the candidate's base"),
    step=(INT, "training step of the base"),
    recipe=(TEXT, "recipe that it is fine-tuned by"),
    state=(TEXT, "pick (best so far), tuned, next (in the next batch), out (hardly any chance left), left"),
    value=(FLOAT, "measured score of the goal, higher is better; null for candidates that are not fine-tuned"),
    expected=(FLOAT, "posterior mean of the score; null before three candidates are fine-tuned"),
    deviation=(FLOAT, "posterior standard deviation of the score"),
    improvement=(FLOAT, "expected improvement over the pick; null outside the batch"),
    hours=(FLOAT, "GPU-hours of fine-tuning and evaluating it, measured or estimated; null where not known"),
    reason=(TEXT, "why it is in this state"),
)

RECOMMENDATIONS = _columns(
    task=(TEXT, "task, or target of a cohort, to choose a base for"),
    recipe=(TEXT, "recipe that the bases were fine-tuned with"),
    suite=(TEXT, "suite that they were evaluated in"),
    topic=(TEXT, "answer, base (each one), regret (of picking by an indicator), cheapest (indicator), pretraining"),
    family=(TEXT, "family of the base that the sentence is about; null if it is about several"),
    step=(INT, "training step of the base"),
    indicator=(TEXT, "indicator that picks the base; chance and last_step need no measurement"),
    statement=(TEXT, "the recommendation in one sentence"),
    value=(
        FLOAT,
        "score after fine-tuning; for regret and cheapest: loss against the best base, without the bias of the maximum; for "
        "pretraining: forecast change of the score with more pre-training; null if there is no forecast",
    ),
    low=(
        FLOAT,
        "lower end of the interval, from rows and the variance between seeds (with single seeds from rows only), cut to "
        "possible scores; for pretraining: of the 80 % interval of the forecast",
    ),
    high=(FLOAT, "upper end of the interval"),
    measured=(
        FLOAT,
        "for regret and cheapest: loss in the measured scores, biased upwards by the choice of the best",
    ),
    probability=(
        FLOAT,
        "probability that the base is the best, with scores shrunk towards their mean; with single seeds from rows only",
    ),
    n=(INT, "scored rows; for pretraining: held-out steps behind the forecast, or steps"),
    seconds=(
        FLOAT,
        "wall time of the job that measures the indicator on a base, together with the base's other indicators",
    ),
    table=(TEXT, "table with the rows behind the sentence, in results/"),
    filter=(
        TEXT,
        "conditions that select these rows, as JSON: column -> value; for a mean over tests those of the first",
    ),
)

AUDIT = _columns(
    check=(TEXT, "name of the check"),
    severity=(
        TEXT,
        "error: the number is not what it is called; warning: it means less than it seems; note: for information",
    ),
    family=(TEXT, "family; null if the finding is not about one family; likewise for the other keys"),
    step=(INT, "training step of the base"),
    train=(TEXT, "fine-tuning task"),
    format=(TEXT, "prompt format of the fine-tuning"),
    recipe=(TEXT, "recipe of the fine-tuning"),
    seed=(INT, "seed of the fine-tuning"),
    suite=(TEXT, "suite"),
    test=(TEXT, "test"),
    test_format=(TEXT, "prompt format of the test"),
    shots=(INT, "demonstrations"),
    metric=(TEXT, "metric"),
    value=(FLOAT, "the value that caused the finding"),
    limit=(FLOAT, "the limit that the value crossed"),
    n=(INT, "number of rows, cells or models checked"),
    cohort=(TEXT, "cohort"),
    evidence=(TEXT, "the finding in one sentence with its numbers"),
)

AUDIT_KEYS = [
    "family", "step", "train", "format", "recipe", "seed", "suite", "test", "test_format", "shots", "metric", "cohort"
]  # fmt: skip

FINDINGS = _columns(
    section=(TEXT, "section of the report"),
    finding=(TEXT, "kind of finding: the name of its module"),
    statement=(TEXT, "the finding in one sentence"),
    value=(FLOAT, "the value of the finding"),
    low=(FLOAT, "lower end of the confidence interval"),
    high=(FLOAT, "upper end of the confidence interval"),
    n=(INT, "number of units, as in the table"),
    table=(TEXT, "table of the value, in results/"),
    filter=(
        TEXT,
        "conditions that select the row, as JSON: column -> value; rows that differ only in `estimator` may be quoted too. A "
        "count selects what it counts: a list matches any of its values, `any` any of its conditions",
    ),
    warnings=(TEXTS, "warnings of the audit about it"),
)


def provenance(**facts: Any) -> dict[str, str]:
    """Metadata of a part: its inputs, and versions of the packages that can change it."""
    versions = {name: version(name) for name in RECORDED_PACKAGES}
    facts |= {"made_of": checksums.used(), "versions": versions}
    return {"tunecast": json.dumps(facts, sort_keys=True, ensure_ascii=False)}


def recorded(path: Path) -> dict[str, Any]:
    """The metadata that `provenance` put into a part.

    Errors: StudyError if the file is not a complete part.
    """
    with _reading(path):
        checksums.check(path)
        facts = (pq.read_schema(path).metadata or {}).get(b"tunecast")
    if facts is None:
        raise StudyError(f"{path}: has no record of how it was made; delete it and run again")
    return json.loads(facts)


def keys_of(path: Path | str) -> dict[str, str]:
    """The hive keys in a path: in its folders and in its name without suffix."""
    return dict(name.split("=", 1) for name in Path(path).with_suffix("").parts if "=" in name)


def check_origin(path: Path | str) -> dict[str, Any]:
    """The metadata of a part, verified to belong to its path and to the present inputs.

    Errors: StudyError for a part of other keys or made from other files.
    """
    facts = recorded(Path(path))
    for name, value in keys_of(path).items():
        if str(facts.get(name, value)) != value:
            raise StudyError(
                f"{path}: was made for {name}={facts[name]}, so it belongs to another cell; delete it and run again"
            )
    checksums.check_used(Path(path), facts.get("made_of", {}))
    return facts


def write(rows: Iterable[Mapping[str, Any]], schema: pa.Schema, path: Path, **facts: Any) -> None:
    """Write rows as a part, atomically. A column that a row lacks is null.

    Errors: pyarrow.ArrowInvalid for a value of another type than the schema's.
    """
    save(pa.Table.from_pylist(list(rows), schema=schema), path, **facts)


def save(table: pa.Table, path: Path, **facts: Any) -> None:
    """Write a table atomically, with its metadata."""
    with whole(path) as unfinished:
        pq.write_table(table.replace_schema_metadata(provenance(**facts)), unfinished)


def save_pieces(tables: Iterable[pa.Table], schema: pa.Schema, path: Path, **facts: Any) -> int:
    """Write tables below each other as one, whole or not at all, with at most PIECE rows and one of them in memory.

    Return the number of rows.
    """
    rows, waiting = 0, [schema.empty_table()]
    with whole(path) as unfinished, pq.ParquetWriter(unfinished, schema.with_metadata(provenance(**facts))) as file:
        for table in tables:
            waiting.append(table)
            if sum(map(len, waiting)) >= PIECE:
                file.write_table(pa.concat_tables(waiting))
                waiting = []
            rows += len(table)
        if waiting:
            file.write_table(pa.concat_tables(waiting))
    return rows


def read(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table as a DataFrame with nullable integers. columns: those to read, as far as they exist.

    Errors: StudyError if the file is not a complete Parquet file.
    """
    return frame(_opened(path, columns))


def batches(path: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """A table's columns piece by piece (row group by row group), so that one of any length fits into memory; text as categories.

    Errors: StudyError when the file is not a complete Parquet file.
    """
    with _reading(path):
        checksums.check(path)
        texts = [field.name for field in pq.read_schema(path) if field.name in columns and field.type == TEXT]
        file = pq.ParquetFile(path, read_dictionary=texts)
        for number in range(file.num_row_groups):
            yield frame(file.read_row_group(number, list(columns)))


def frame(table: pa.Table) -> pd.DataFrame:
    """Convert a table to a DataFrame with nullable integers."""
    return table.to_pandas(types_mapper={INT: pd.Int64Dtype()}.get)


def rows(path: Path) -> list[dict[str, Any]]:
    """Read a table as Python rows.

    Errors: StudyError if the file is not a complete Parquet file.
    """
    return _opened(path).to_pylist()


ANY = "any"  # key of conditions of which a row has to meet one


def matching(table: pd.DataFrame, conditions: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a table with these values; None matches null, a list for any of its values.

    The key ANY holds a list of further conditions; a row has to meet one of them.
    """
    for key, value in conditions.items():
        if key == ANY:
            met = set().union(*(matching(table, one).index for one in value))
            table = table[table.index.isin(met)]
        elif isinstance(value, list):
            table = table[table[key].isin(value)]
        else:
            table = table[table[key].isna() if pd.isna(value) else (table[key] == value).fillna(False).astype(bool)]
    return table


def _opened(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Open a Parquet file without the hive keys of its path. columns: those to read, as far as they exist."""
    with _reading(path):
        checksums.check(path)
        file = pq.ParquetFile(path)
        return file.read(columns and [name for name in file.schema_arrow.names if name in columns])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Context manager: name a file that is not a complete part or cannot be read."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise StudyError(
            f"{path}: not a complete Parquet file: {first_line(error)}; delete it and run again"
        ) from error


def gather(parts: Sequence[Path], keys: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Join parts into one table. The first columns are the hive keys of each part's path.

    Errors: StudyError for a part that is incomplete or does not belong to the present study.
    """
    return pa.concat_tables([keyed(keys, schema).empty_table(), *pieces(parts, keys, schema)])


def pieces(parts: Sequence[Path], keys: Sequence[str], schema: pa.Schema) -> Iterator[pa.Table]:
    """The parts of `gather` one by one, for tables that are too long for memory."""
    return (_keyed(part, keyed(keys, schema), keys) for part in parts)


def keyed(keys: Sequence[str], schema: pa.Schema) -> pa.Schema:
    """A schema led by keys."""
    known = {field.name: field for field in (*KEYS, *OTHER_KEYS)}
    return pa.schema([*(known.get(name, pa.field(name, TEXT)) for name in keys), *schema])


def _keyed(part: Path, schema: pa.Schema, keys: Sequence[str]) -> pa.Table:
    """A part with its keys as first columns: those of its path, or its own if it holds many cells."""
    check_origin(part)
    table, path_keys = _opened(part), keys_of(part)
    for index, name in enumerate(keys):
        if name not in table.column_names:
            column = pa.array([path_keys[name]] * len(table)).cast(schema.field(name).type)
            table = table.add_column(index, name, column)
    for name in schema.names:
        if name not in table.column_names:
            raise StudyError(
                f"{part}: column {name!r} is missing, so another version of Tunecast wrote it; delete it and run again"
            )
    return table.select(schema.names).cast(schema)
