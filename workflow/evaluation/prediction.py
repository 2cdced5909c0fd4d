"""Predictions of one model on one suite: log-probabilities of labels and choices, greedy text.

A test's method (`metrics.method`) is how its predictions are made: `label` and `rank` compare the log-probabilities of
candidates given the prompt, `generate` and `label_generated` write greedily, `label_constrained` writes what must hold a
label. Protocols differ as the design of the two studies demands; see `demonstrations.demonstrations`, `_pooled` and `_whole`.

Each method goes three ways in turn: rows to token ids, token ids through the model, what the model gives to predictions.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from workflow.data import prompts
from workflow.data.demonstrations import Rows, demonstrations, sample
from workflow.errors import StudyError, row_named
from workflow.evaluation.metrics import method
from workflow.models import process_group
from workflow.models.encoding import Framing, Prompt, check_tokens, context_length, fitted, opening, split, tokenized
from workflow.models.engine import finite
from workflow.models.engine.constrained import constrained
from workflow.models.engine.generation import greedy
from workflow.models.engine.reading import reading
from workflow.models.engine.scoring import Progress, Request, log_probabilities
from workflow.task import KINDS, Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What stands for every field of a prompt without content (Zhao et al. 2021, "Calibrate Before Use", section 5).
CONTENT_FREE = ("N/A", "[MASK]", "")


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """Text before its first stop string, without surrounding white space."""
    ends = [text.index(stop) for stop in stops if stop in text]
    return text[: min(ends, default=len(text))].strip()


@dataclass(frozen=True)
class Evaluation:
    """One model with its tokenizer, under a suite: its block of the config, and who hears of progress."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    suite: Mapping[str, Any]
    progress: Progress | None = None

    @property
    def protocol(self) -> str:
        """The suite's protocol."""
        return self.suite["protocol"]


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suite: Mapping[str, Any],
    tests: Mapping[str, tuple[Task, Rows, Rows]],
    progress: Progress | None = None,
) -> Iterator[dict[str, Any]]:
    """All predictions of a suite, rows in the columns of `tables.PREDICTIONS`.

    suite: its block of the config; tests: name -> (task, training rows, test rows).
    Errors: StudyError when demonstrations leave a test without rows to score.
    """
    run = Evaluation(model, tokenizer, suite, progress)
    with reading(model, suite["batch_tokens"]):
        for name, format, shots in itertools.product(suite["tests"], suite["formats"], suite["shots"]):
            task, train, test = tests[name]
            rows = predict_test(run, task, train, test, format, shots)
            if not rows:
                raise StudyError(
                    f"test '{name}': {shots} demonstrations take all {len(test)} rows; allowed: fewer than {len(test)}"
                )
            for row in rows:
                yield {"test": name, "test_format": format, "shots": shots, **row}


def predict_test(run: Evaluation, task: Task, train: Rows, test: Rows, format: str, shots: int) -> list[dict[str, Any]]:
    """Predictions of one test in one format with a number of demonstrations; of several processes each makes its share."""
    shown, unscored = demonstrations(train, test, shots, run.suite["seed"], run.protocol)
    chosen = sample([row for row in test if row[0] not in unscored], run.suite.get("limit"), run.suite["seed"])
    how = method(task, run.suite["labels"])
    longest = 0 if how not in ("label", "rank", "answer") else _longest_answer(run.tokenizer, chosen)
    longest = longest if how in ("label", "rank") else max(longest, new_token_limit(task, run.suite))
    room = None if run.protocol == "published" else context_length(run.model) - longest
    framing = Framing(task, format, run.protocol, tuple(example for _, example in shown), room)
    own = process_group.share(chosen)
    found = [fitted(run.tokenizer, framing, example) for _, example in own]
    with reading(run.model, run.suite["batch_tokens"]) as reader, reader.in_step():
        answers = ANSWERS[how](run, framing, found, own) if own else []
    rows = [
        {
            "id": row,
            "prompt_sha256": hashlib.sha256(prompt.text.encode()).hexdigest(),
            "prompt_tokens": len(prompt.ids),
            "shots_used": prompt.shots,
            "shown": [row for row, _ in shown[len(shown) - prompt.shots :]],
            "truncated": prompt.truncated,
            "cut_tokens": prompt.cut_tokens,
            "reference": example.answer,
            "choices": list(example.choices),
            "gold": example.gold,
            **result,
        }
        for (row, example), prompt, result in zip(own, found, answers, strict=True)
    ]
    return process_group.joined(rows)


def _longest_answer(tokenizer: PreTrainedTokenizerBase, rows: Rows) -> int:
    """Tokens of the longest choice of all rows, with its lead where there are leads: what a prompt must leave room for."""
    leads = [row.leads or ("",) * len(row.choices) for _, row in rows]
    answers = [
        prompts.completion(lead + choice)
        for (_, row), own in zip(rows, leads, strict=True)
        for lead, choice in zip(own, row.choices, strict=True)
    ]
    return max(map(len, tokenizer(answers, add_special_tokens=False)["input_ids"])) if answers else 0


def new_token_limit(task: Task, suite: Mapping[str, Any]) -> int:
    """Longest generation in tokens: label words have their kind's own limit, text the suite's."""
    return KINDS[task.kind].new_tokens if task.labels else suite["new_tokens"]


def _compared(run: Evaluation, framing: Framing, found: Sequence[Prompt], rows: Rows) -> list[dict[str, Any]]:
    """Label or choice with the highest log-probability of each row; a tie goes to the first in order.

    Errors: StudyError for a row whose log-probabilities are not finite numbers.
    """
    asked = [(prompt, example) for prompt, (_, example) in zip(found, rows, strict=True)]
    kept = sorted({prompt.shots for prompt in found}) if framing.task.labels else []
    blank = [prompt for shots in kept for prompt in _content_free(run.tokenizer, framing, shots)]
    pools = _candidates(run.tokenizer, framing, [*asked, *blank])
    for (place, example), row in zip(rows, pools, strict=False):
        _check_tokens(place, example.choices, row)
    values = _highest(run, pools)
    for (place, _), own, prompt in zip(rows, values, found, strict=False):
        _check_finite(run, f"row '{place}'", own, prompt)
    for (prompt, _), own in zip(blank, values[len(asked) :], strict=True):
        _check_finite(run, f"prompt without content ({prompt.text[:40]!r})", own, prompt)
    priors = dict(zip(kept, _priors(values[len(asked) :]), strict=True))
    return [
        {
            "output": example.choices[own.index(max(own))],
            "logprobs": own,
            "candidate_tokens": [len(pool[0][1]) for pool in row],
            "priors": priors.get(prompt.shots, []),
            "spanning": _spanning(run, prompt, example, row),
        }
        for (prompt, example), row, own in zip(asked, pools, values, strict=False)
    ]


Pool = list[Request]


def _candidates(
    tokenizer: PreTrainedTokenizerBase, framing: Framing, asked: Sequence[tuple[Prompt, Example]]
) -> list[list[Pool]]:
    """For each prompt one pool of requests for each choice, whose best stands for it; see `_pooled` and `_whole`."""
    if framing.protocol == "published" and framing.task.labels:
        pieces = label_tokens(tokenizer, framing.task.labels)
        return [_pooled(tokenizer, prompt, pieces) for prompt, _ in asked]
    return [_whole(tokenizer, prompt, example) for prompt, example in asked]


def _whole(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, example: Example) -> list[Pool]:
    """One request for each choice: all its tokens after the prompt and the choice's lead."""
    # A trailing space of the prompt goes to the choice, as in running text (and in lm-evaluation-harness).
    text = prompt.text.rstrip(" ")
    if not example.leads:
        return [[part] for part in split(tokenizer, text, [prompts.completion(choice) for choice in example.choices])]
    pairs = zip(example.leads, example.choices, strict=True)
    return [split(tokenizer, text + prompts.completion(lead), [choice]) for lead, choice in pairs]


def _pooled(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, pieces: Sequence[Sequence[int]]) -> list[Pool]:
    """One request for each piece of each label, as the next token after the prompt: the paper's *Token probability*."""
    context = prompt.ids or opening(tokenizer)
    return [[(context, [token]) for token in own] for own in pieces]


def label_tokens(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> list[list[int]]:
    """The published candidates of each label: every token of both its spellings, each once.

    Source: released code of arXiv 2408.06663 (`--constraint_type next_word`). The paper speaks of a word's first token; in
    the code the middle ones count as well.
    """
    return [list(dict.fromkeys(itertools.chain(*pair))) for pair in _spellings(tokenizer, labels)]


def _spellings(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> list[list[list[int]]]:
    """Token ids of each label's two spellings, plain and led by a space."""
    return [tokenizer([label, f" {label}"], add_special_tokens=False)["input_ids"] for label in labels]


def _spanning(run: Evaluation, prompt: Prompt, example: Example, pools: Sequence[Pool]) -> bool | None:
    """Whether the prompt by itself has other tokens than before a candidate, so that one spans the end of the one and the
    beginning of the other; None where candidates are read otherwise (after leads of their own, or as pooled tokens).

    Such a token is scored here as part of the candidate. lm-evaluation-harness reads the prompt's own tokens instead, and scores
    as many of the candidate as then are left.
    """
    if example.leads or len(pools[0]) > 1:
        return None
    text = prompt.text.rstrip(" ")
    alone = prompt.ids if text == prompt.text else tokenized(run.tokenizer, [text])[0].ids
    return any(list(pool[0][0]) != list(alone or opening(run.tokenizer)) for pool in pools)


def _check_tokens(place: str, choices: Sequence[str], pools: Sequence[Pool]) -> None:
    """StudyError naming the row unless each of its choices has tokens to score."""
    for choice, pool in zip(choices, pools, strict=True):
        with row_named(f"row '{place}'"):
            check_tokens(choice, pool[0][1] if pool else [])


def _highest(run: Evaluation, pools: Sequence[Sequence[Pool]]) -> list[list[float]]:
    """The highest log-probability of each pool, in nats."""
    requests = [request for row in pools for pool in row for request in pool]
    sums = iter(log_probabilities(run.model, requests, run.suite["batch_tokens"], run.progress))
    return [[max(next(sums) for _ in pool) for pool in row] for row in pools]


def _check_finite(run: Evaluation, place: str, values: Sequence[float], prompt: Prompt) -> None:
    if not all(map(math.isfinite, values)):
        source = _source(run, prompt)
        raise StudyError(
            f"{place}: log-probabilities {values}, expected finite numbers; see weights and precision{source}"
        )


def _source(run: Evaluation, prompt: Prompt) -> str:
    """Where in the model numbers that are not finite come from, for a message."""
    with reading(run.model, run.suite["batch_tokens"]) as reader, reader.as_it_was():
        return finite.source(run.model, prompt.ids or opening(run.tokenizer))


@contextlib.contextmanager
def _finite(run: Evaluation, found: Sequence[Prompt], rows: Rows) -> Iterator[None]:
    """Inside, scores that are not finite are a StudyError with the row and where in the model they come from."""
    try:
        yield
    except finite.NotFiniteError as error:
        source = _source(run, found[error.number])
        raise StudyError(f"row '{rows[error.number][0]}': {error}{source}") from error


def _priors(values: Sequence[Sequence[float]]) -> list[list[float]]:
    """The labels' prior from each few log-probabilities of prompts without content, as many as CONTENT_FREE."""
    size = len(CONTENT_FREE)
    return [prior(values[start : start + size]) for start in range(0, len(values), size)]


def _content_free(tokenizer: PreTrainedTokenizerBase, framing: Framing, shots: int) -> list[tuple[Prompt, Example]]:
    """The framing's prompt after its last `shots` demonstrations, with each of CONTENT_FREE in place of every field."""
    names = prompts.field_names(prompts.template(framing.task, framing.format))
    shown = framing.demonstrations[len(framing.demonstrations) - shots :]
    examples = [Example(dict.fromkeys(names, text), answer="", choices=framing.task.labels) for text in CONTENT_FREE]
    return [(fitted(tokenizer, replace(framing, demonstrations=shown), example), example) for example in examples]


def prior(values: Sequence[Sequence[float]]) -> list[float]:
    """Log-probability of each label where a prompt says nothing, in nats.

    values: log-probability l[f, c] of label c after the prompt with content-free text f. Each prompt's labels are
    normalised, the mean is taken over prompts: log(1/F sum_f exp l[f, c] / sum_c' exp l[f, c']). Subtracting it from a
    row's log-probabilities is contextual calibration (Zhao et al. 2021, section 5: W = diag(p_cf)^-1, b = 0).
    """
    shares = torch.tensor(values, dtype=torch.float64).log_softmax(dim=1)
    return (shares.logsumexp(dim=0) - math.log(len(values))).tolist()


def _written(run: Evaluation, framing: Framing, found: Sequence[Prompt], rows: Rows) -> list[dict[str, Any]]:
    """Greedy text of each row: label words have five new tokens, text the suite's number; `sound` stops at the format's end.

    Labels in `published` are the paper's *Free*: nothing stops before EOS, and nothing is cut.
    """
    sound = framing.protocol == "sound"
    stops = prompts.stops(framing.task, framing.format) if sound else ()
    new_tokens = new_token_limit(framing.task, run.suite)
    contexts = [prompt.ids or opening(run.tokenizer) for prompt in found]
    with _finite(run, found, rows):
        outputs = greedy(run.model, run.tokenizer, contexts, new_tokens, stops, run.suite["batch_tokens"], run.progress)
    texts = run.tokenizer.batch_decode(outputs, skip_special_tokens=True)
    return [
        {
            "output": cut_at_stop(text, stops) if sound else text,
            "output_tokens": len(ids),
            "logprobs": [],
            "candidate_tokens": [],
            "priors": [],
        }
        for ids, text in zip(outputs, texts, strict=True)
    ]


def _answered(run: Evaluation, framing: Framing, found: Sequence[Prompt], rows: Rows) -> list[dict[str, Any]]:
    """Greedy text of each row, beside the log-probability of the reference answer."""
    pools = [
        [_whole(run.tokenizer, prompt, replace(example, choices=(example.answer,)))[0]]
        for prompt, (_, example) in zip(found, rows, strict=True)
    ]
    for (place, example), row in zip(rows, pools, strict=True):
        _check_tokens(place, [example.answer], row)
    values = _highest(run, pools)
    for (place, _), own, prompt in zip(rows, values, found, strict=True):
        _check_finite(run, f"row '{place}'", own, prompt)
    return [
        {
            **row,
            "logprobs": own,
            "candidate_tokens": [len(pool[0][0][1])],
            "spanning": _spanning(run, prompt, example, pool),
        }
        for row, own, prompt, (_, example), pool in zip(
            _written(run, framing, found, rows), values, found, rows, pools, strict=True
        )
    ]


def _forced(run: Evaluation, framing: Framing, found: Sequence[Prompt], rows: Rows) -> list[dict[str, Any]]:
    """Text of each row that must hold a label (see `constrained`), beside the greedy text of the same length.

    `published`: a label in the prompt will do, as in the search that the study used; so with demonstrations none is forced.
    """
    free = _written(run, framing, found, rows)
    spellings = list(itertools.chain(*_spellings(run.tokenizer, framing.task.labels)))
    new_tokens, batch_tokens = new_token_limit(framing.task, run.suite), run.suite["batch_tokens"]
    contexts = [prompt.ids or opening(run.tokenizer) for prompt in found]
    published = run.suite["protocol"] == "published"
    with _finite(run, found, rows):
        outputs = constrained(
            run.model,
            run.tokenizer,
            contexts,
            spellings,
            new_tokens,
            batch_tokens,
            run.progress,
            prompt_counts=published,
        )
    texts = run.tokenizer.batch_decode(outputs, skip_special_tokens=True)
    return [
        {**row, "output": text, "output_tokens": len(ids), "free_output": row["output"]}
        for row, ids, text in zip(free, outputs, texts, strict=True)
    ]


ANSWERS: dict[str, Callable[[Evaluation, Framing, Sequence[Prompt], Rows], list[dict[str, Any]]]] = {
    "label": _compared,
    "rank": _compared,
    "label_generated": _written,
    "generate": _written,
    "answer": _answered,
    "label_constrained": _forced,
}
