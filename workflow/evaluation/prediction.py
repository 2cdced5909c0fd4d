"""Predictions of one model on one suite: log-probabilities of labels and choices, greedy text.

A test's method (`metrics.method`) says how its predictions are made: `label` and `rank` compare the log-probabilities of
candidates given the prompt, `generate` and `label_generated` generate greedily, `label_constrained` generates text that must
contain a label. The protocols differ; see `demonstrations.demonstrations`, `_pooled` and `_whole`.

Each method has three steps: encode rows, run the model, turn its output into predictions.
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

from workflow.data import lm_eval_tasks, prompts
from workflow.data.demonstrations import Rows, demonstrations, sample, shots
from workflow.data.lm_eval_tasks import HarnessTask
from workflow.errors import StudyError, row_named
from workflow.evaluation import lm_eval_requests
from workflow.evaluation.metric_names import UNCONDITIONAL
from workflow.evaluation.metrics import method
from workflow.models import chat, process_group
from workflow.models.encoding import Framing, Prompt, check_tokens, context_length, fitted, opening, split, tokenized
from workflow.models.engine import finite
from workflow.models.engine.constrained import constrained
from workflow.models.engine.generation import greedy
from workflow.models.engine.reading import reading
from workflow.models.engine.scoring import Progress, Request, log_probabilities
from workflow.settings import Suite
from workflow.task import KINDS, Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# The text of every field in a content-free prompt (Zhao et al. 2021, "Calibrate Before Use", section 5).
CONTENT_FREE = ("N/A", "[MASK]", "")


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """Return the text before its first stop string, stripped of white space."""
    ends = [text.index(stop) for stop in stops if stop in text]
    return text[: min(ends, default=len(text))].strip()


@dataclass(frozen=True)
class Evaluation:
    """A model and its tokenizer, a suite's block of the config, and a progress callback."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    suite: Suite
    progress: Progress | None = None

    @property
    def protocol(self) -> str:
        """The suite's protocol."""
        return self.suite["protocol"]


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suite: Suite,
    tests: Mapping[str, tuple[Task, Rows, Rows]],
    progress: Progress | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield all predictions of a suite, in the columns of `tables.PREDICTIONS`.

    suite: its block of the config; tests: name -> (task, training rows, test rows).
    Errors: StudyError if the few-shot examples leave a test without rows to score.
    """
    run = Evaluation(model, tokenizer, suite, progress)
    with reading(model, suite["batch_tokens"]):
        for name, format, number in _evaluations(suite):
            task, train, test = tests[name]
            rows = predict_test(run, task, train, test, format, number)
            if not rows:
                raise StudyError(
                    f"test '{name}': {number} few-shot examples take all {len(test)} rows; allowed: fewer than {len(test)}"
                )
            for row in rows:
                yield {"test": name, "test_format": format, "shots": number, **row}


def _evaluations(suite: Suite) -> Iterator[tuple[str, str, int]]:
    """Yield test, format and number of few-shot examples of each evaluation of a suite."""
    for name, format in itertools.product(suite["tests"], suite["formats"]):
        yield from ((name, format, number) for number in shots(name, suite["shots"]))


def predict_test(run: Evaluation, task: Task, train: Rows, test: Rows, format: str, shots: int) -> list[dict[str, Any]]:
    """Return the predictions of one test in one format with `shots` few-shot examples; each process predicts its share."""
    if task.lm_eval:
        return _predict_as_lm_eval(run, task.lm_eval, train, test, shots)
    shown, unscored = demonstrations(train, test, shots, run.suite["seed"], run.protocol)
    chosen = sample([row for row in test if row[0] not in unscored], run.suite.get("limit"), run.suite["seed"])
    way = method(task, run.suite["labels"])
    longest = 0 if way not in ("label", "rank", "answer") else _longest_answer(run.tokenizer, chosen)
    longest = longest if way in ("label", "rank") else max(longest, new_token_limit(task, run.suite))
    room = None if run.protocol == "published" else context_length(run.model) - longest
    framing = Framing(task, format, run.protocol, tuple(example for _, example in shown), room, run.suite.get("system"))
    rows_here = process_group.share(chosen)
    prompts_here = [fitted(run.tokenizer, framing, example) for _, example in rows_here]
    with reading(run.model, run.suite["batch_tokens"]) as reader, reader.in_step():
        answers = ANSWERS[way](run, framing, prompts_here, rows_here) if rows_here else []
    rows = [
        _predicted(row, prompt, shown[len(shown) - prompt.shots :], result)
        for row, prompt, result in zip(rows_here, prompts_here, answers, strict=True)
    ]
    return process_group.gathered(rows)


def _predicted(row: tuple[str, Example], prompt: Prompt, shown: Rows, result: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of one prediction."""
    name, example = row
    return {
        "id": name,
        "prompt_sha256": hashlib.sha256(prompt.text.encode()).hexdigest(),
        "prompt_tokens": len(prompt.ids),
        "shots_used": prompt.shots,
        "shown": [row for row, _ in shown],
        "truncated": prompt.truncated,
        "cut_tokens": prompt.cut_tokens,
        "reference": example.answer,
        "choices": list(example.choices),
        "gold": example.gold,
        **result,
    }


def _longest_answer(tokenizer: PreTrainedTokenizerBase, rows: Rows) -> int:
    """Return the tokens of the longest choice of all rows, with its lead if there is one; prompts must leave room for it."""
    leads = [row.leads or ("",) * len(row.choices) for _, row in rows]
    answers = [
        prompts.completion(lead + choice)
        for (_, row), row_leads in zip(rows, leads, strict=True)
        for lead, choice in zip(row_leads, row.choices, strict=True)
    ]
    return max(map(len, tokenizer(answers, add_special_tokens=False)["input_ids"])) if answers else 0


def new_token_limit(task: Task, suite: Suite) -> int:
    """Return the most new tokens: for label words the limit of their kind, for text the suite's."""
    return KINDS[task.kind].new_tokens if task.labels else suite["new_tokens"]


def _compared(run: Evaluation, framing: Framing, framed: Sequence[Prompt], rows: Rows) -> list[dict[str, Any]]:
    """Return each row's label or choice with the highest log-probability; in a tie, the first one.

    Errors: StudyError for a row whose log-probabilities are not finite numbers.
    """
    questions = [(prompt, example) for prompt, (_, example) in zip(framed, rows, strict=True)]
    kept = sorted({prompt.shots for prompt in framed}) if framing.task.labels else []
    blank = [prompt for shots in kept for prompt in _content_free(run.tokenizer, framing, shots)]
    pools = _candidates(run.tokenizer, framing, [*questions, *blank])
    for (id, example), row in zip(rows, pools, strict=False):
        _check_tokens(id, example.choices, row)
    values = _highest(run, pools)
    for (id, _), scores, prompt in zip(rows, values, framed, strict=False):
        _check_finite(run, f"row '{id}'", scores, prompt)
    for (prompt, _), scores in zip(blank, values[len(questions) :], strict=True):
        _check_finite(run, f"prompt without content ({prompt.text[:40]!r})", scores, prompt)
    priors = dict(zip(kept, _priors(values[len(questions) :]), strict=True))
    alone = (
        _unconditional(run, framing, rows)
        if UNCONDITIONAL in run.suite.get("metrics", ()) and not framing.task.labels
        else None
    )
    return [
        {
            "output": example.choices[scores.index(max(scores))],
            "logprobs": scores,
            "candidate_tokens": [len(pool[0][1]) for pool in row],
            "priors": alone[number] if alone else priors.get(prompt.shots, []),
            "spanning": _spanning(run, framing, prompt, example, row),
        }
        for number, ((prompt, example), row, scores) in enumerate(zip(questions, pools, values, strict=False))
    ]


def _unconditional(run: Evaluation, framing: Framing, rows: Rows) -> list[list[float]]:
    """Return the log-probability of each choice of each row without a prompt: after BOS, else EOS (`opening`)."""
    blank = Prompt("", [], 0, False)
    return _highest(run, [_whole(run.tokenizer, blank, example, framing.templated) for _, example in rows])


Pool = list[Request]


def _candidates(
    tokenizer: PreTrainedTokenizerBase, framing: Framing, questions: Sequence[tuple[Prompt, Example]]
) -> list[list[Pool]]:
    """Return for each prompt one pool of requests per choice, whose best counts; see `_pooled` and `_whole`."""
    if framing.protocol == "published" and framing.task.labels:
        pieces = label_tokens(tokenizer, framing.task.labels)
        return [_pooled(tokenizer, prompt, pieces) for prompt, _ in questions]
    return [_whole(tokenizer, prompt, example, framing.templated) for prompt, example in questions]


def _whole(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, example: Example, templated: bool = False) -> list[Pool]:
    """Return one request for each choice: all its tokens after the prompt and the choice's lead.

    templated: whether the prompt is in a chat template, which an answer follows without a space.
    """
    if templated:
        leads = example.leads or ("",) * len(example.choices)
        texts = [prompt.text + lead for lead in leads]
        pairs = zip(texts, example.choices, strict=True)
        return [[split(tokenizer, text, [choice], templated)[0]] for text, choice in pairs]
    # A trailing space of the prompt is moved to the choice, as in running text (and in lm-evaluation-harness).
    text = prompt.text.rstrip(" ")
    if not example.leads:
        choices = [prompts.completion(choice) for choice in example.choices]
        return [[part] for part in split(tokenizer, text, choices)]
    pairs = zip(example.leads, example.choices, strict=True)
    parts = (split(tokenizer, text + prompts.completion(lead), [choice])[0] for lead, choice in pairs)
    return [[part] for part in parts]


def _pooled(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, pieces: Sequence[Sequence[int]]) -> list[Pool]:
    """Return one request for each token of each label, as the next token after the prompt: the paper's *Token probability*."""
    context = prompt.ids or opening(tokenizer)
    return [[(context, [token]) for token in tokens] for tokens in pieces]


def label_tokens(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> list[list[int]]:
    """Return the published candidates of each label: every token of both its spellings, each once.

    Source: released code of arXiv 2408.06663 (`--constraint_type next_word`). The paper mentions a word's first token only;
    the code uses all its tokens.
    """
    return [list(dict.fromkeys(itertools.chain(*pair))) for pair in _spellings(tokenizer, labels)]


def _spellings(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> list[list[list[int]]]:
    """Return the token ids of each label's two spellings, without and with a leading space."""
    return [tokenizer([label, f" {label}"], add_special_tokens=False)["input_ids"] for label in labels]


def _spanning(
    run: Evaluation, framing: Framing, prompt: Prompt, example: Example, pools: Sequence[Pool]
) -> bool | None:
    """Return whether a token spans the end of the prompt and the beginning of a candidate, so that the prompt alone has other
    tokens; None for candidates after leads and for pooled tokens.

    Here such a token is scored as part of the candidate. lm-evaluation-harness keeps the tokens of the prompt alone and
    scores the remaining tokens of the candidate.
    """
    if example.leads or len(pools[0]) > 1:
        return None
    text = prompt.text if framing.templated else prompt.text.rstrip(" ")
    alone = prompt.ids if text == prompt.text else tokenized(run.tokenizer, [text])[0].ids
    return any(list(pool[0][0]) != list(alone or opening(run.tokenizer)) for pool in pools)


def _check_tokens(id: str, choices: Sequence[str], pools: Sequence[Pool]) -> None:
    """Raise StudyError naming the row unless each of its choices has tokens to score."""
    for choice, pool in zip(choices, pools, strict=True):
        with row_named(f"row '{id}'"):
            check_tokens(choice, pool[0][1] if pool else [])


def _highest(run: Evaluation, pools: Sequence[Sequence[Pool]]) -> list[list[float]]:
    """Return the highest log-probability of each pool, in nats."""
    requests = [request for row in pools for pool in row for request in pool]
    sums = iter(log_probabilities(run.model, requests, run.suite["batch_tokens"], run.progress))
    return [[max(next(sums) for _ in pool) for pool in row] for row in pools]


def _check_finite(run: Evaluation, where: str, values: Sequence[float], prompt: Prompt) -> None:
    if not all(map(math.isfinite, values)):
        source = _source(run, prompt)
        raise StudyError(
            f"{where}: log-probabilities {values}, expected finite numbers; see weights and precision{source}"
        )


def _source(run: Evaluation, prompt: Prompt) -> str:
    """Return the source of non-finite numbers in the model, for a message."""
    with reading(run.model, run.suite["batch_tokens"]) as reader, reader.as_it_was():
        return finite.source(run.model, prompt.ids or opening(run.tokenizer))


@contextlib.contextmanager
def _finite(run: Evaluation, framed: Sequence[Prompt], rows: Rows) -> Iterator[None]:
    """Turn scores that are not finite into a StudyError naming the row and the source in the model."""
    try:
        yield
    except finite.NotFiniteError as error:
        source = _source(run, framed[error.number])
        raise StudyError(f"row '{rows[error.number][0]}': {error}{source}") from error


def _priors(values: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the labels' priors, one for each group of content-free prompts (as many as CONTENT_FREE has texts)."""
    size = len(CONTENT_FREE)
    return [prior(values[start : start + size]) for start in range(0, len(values), size)]


def _content_free(tokenizer: PreTrainedTokenizerBase, framing: Framing, shots: int) -> list[tuple[Prompt, Example]]:
    """Return the framing's prompts after its last `shots` few-shot examples, with each of CONTENT_FREE in every field."""
    names = prompts.field_names(prompts.template(framing.task, framing.format))
    shown = framing.demonstrations[len(framing.demonstrations) - shots :]
    examples = [Example(dict.fromkeys(names, text), answer="", choices=framing.task.labels) for text in CONTENT_FREE]
    return [(fitted(tokenizer, replace(framing, demonstrations=shown), example), example) for example in examples]


def prior(values: Sequence[Sequence[float]]) -> list[float]:
    """Return the log-probability of each label after a content-free prompt, in nats.

    values: log-probability l[f, c] of label c after the prompt with content-free text f. The labels of each prompt are
    normalised, then averaged over prompts: log(1/F sum_f exp l[f, c] / sum_c' exp l[f, c']). Subtracting it from a
    row's log-probabilities is contextual calibration (Zhao et al. 2021, section 5: W = diag(p_cf)^-1, b = 0).
    """
    shares = torch.tensor(values, dtype=torch.float64).log_softmax(dim=1)
    return (shares.logsumexp(dim=0) - math.log(len(values))).tolist()


def _written(run: Evaluation, framing: Framing, framed: Sequence[Prompt], rows: Rows) -> list[dict[str, Any]]:
    """Return the greedy text of each row, up to `new_token_limit` tokens; `sound` stops at the format's stop strings.

    For labels, `published` is the paper's *Free*: text ends only at EOS and is not cut.
    """
    sound = framing.protocol == "sound"
    stops = prompts.stops(framing.task, framing.format) if sound else ()
    new_tokens = new_token_limit(framing.task, run.suite)
    contexts = [prompt.ids or opening(run.tokenizer) for prompt in framed]
    turn = chat.end(run.tokenizer) if framing.templated else ()
    with _finite(run, framed, rows):
        outputs = greedy(
            run.model, run.tokenizer, contexts, new_tokens, stops, run.suite["batch_tokens"], run.progress, turn
        )
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


def _answered(run: Evaluation, framing: Framing, framed: Sequence[Prompt], rows: Rows) -> list[dict[str, Any]]:
    """Return the greedy text of each row and the log-probability of the reference answer."""
    pools = [
        [_whole(run.tokenizer, prompt, replace(example, choices=(example.answer,)), framing.templated)[0]]
        for prompt, (_, example) in zip(framed, rows, strict=True)
    ]
    for (id, example), row in zip(rows, pools, strict=True):
        _check_tokens(id, [example.answer], row)
    values = _highest(run, pools)
    for (id, _), scores, prompt in zip(rows, values, framed, strict=True):
        _check_finite(run, f"row '{id}'", scores, prompt)
    return [
        {
            **row,
            "logprobs": scores,
            "candidate_tokens": [len(pool[0][0][1])],
            "spanning": _spanning(run, framing, prompt, example, pool),
        }
        for row, scores, prompt, (_, example), pool in zip(
            _written(run, framing, framed, rows), values, framed, rows, pools, strict=True
        )
    ]


def _forced(run: Evaluation, framing: Framing, framed: Sequence[Prompt], rows: Rows) -> list[dict[str, Any]]:
    """Return text that must contain a label (see `constrained`) for each row, and the greedy text of the same length.

    In `published` a label in the prompt meets the constraint, as in the study's search, so few-shot prompts force none.
    """
    free = _written(run, framing, framed, rows)
    spellings = list(itertools.chain(*_spellings(run.tokenizer, framing.task.labels)))
    new_tokens, batch_tokens = new_token_limit(framing.task, run.suite), run.suite["batch_tokens"]
    contexts = [prompt.ids or opening(run.tokenizer) for prompt in framed]
    published = run.suite["protocol"] == "published"
    with _finite(run, framed, rows):
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


# --- tasks of lm-evaluation-harness --------------------------------------------------------------------------------------


def _predict_as_lm_eval(
    run: Evaluation, harness: HarnessTask, pool: Rows, test: Rows, shots: int
) -> list[dict[str, Any]]:
    """Return the predictions of one test as the harness makes them; each process predicts its share.

    pool: rows that few-shot examples are drawn from. A limit takes the first rows, as the harness does.
    """
    chosen = test[: run.suite.get("limit")]
    drawn = lm_eval_tasks.shown_rows(harness, pool, chosen, shots)
    here = process_group.share(list(zip(chosen, drawn, strict=True)))
    rows = [row for row, _ in here]
    texts = [lm_eval_requests.contexts(harness, example, before) for (_, example), before in here]
    answers = _chosen_as_lm_eval if harness.output == "multiple_choice" else _written_as_lm_eval
    with reading(run.model, run.suite["batch_tokens"]) as reader, reader.in_step():
        results = answers(run, harness, rows, texts) if rows else []
    return process_group.gathered(
        [
            _predicted(row, prompt._replace(shots=shots), before, result)
            for (row, before), (prompt, result) in zip(here, results, strict=True)
        ]
    )


Results = list[tuple[Prompt, dict[str, Any]]]


def _chosen_as_lm_eval(run: Evaluation, harness: HarnessTask, rows: Rows, texts: Sequence[Sequence[str]]) -> Results:
    """Return each row's prompt and the choice with the highest log-probability; in a tie, the first one.

    `priors` are the log-probabilities without a context, if a metric needs them.
    """
    length = lm_eval_requests.max_length(run.model, run.tokenizer)
    asked, alone = [], []
    for (id, example), contexts in zip(rows, texts, strict=True):
        with row_named(f"row '{id}'"):
            asked.append(lm_eval_requests.choices(run.tokenizer, contexts, example, length))
            blank = lm_eval_requests.unconditional(run.tokenizer, example, length) if harness.unconditional else []
            alone.append(blank)
    values = _highest(run, [[[(pair.context, pair.continuation)] for pair in row] for row in [*asked, *alone]])
    results = []
    for (id, example), contexts, row, scores, priors in zip(
        rows, texts, asked, values[: len(rows)], values[len(rows) :], strict=True
    ):
        cut = max(pair.cut for pair in row)
        prompt = Prompt(contexts[0], list(row[0].context), 0, cut > 0, cut)
        _check_finite(run, f"row '{id}'", [*scores, *priors], prompt)
        lengths = [len(pair.continuation) for pair in row]
        output = example.choices[scores.index(max(scores))]
        results.append((prompt, {"output": output, "logprobs": scores, "candidate_tokens": lengths, "priors": priors}))
    return results


def _written_as_lm_eval(run: Evaluation, harness: HarnessTask, rows: Rows, texts: Sequence[Sequence[str]]) -> Results:
    """Return each row's prompt and its greedy text up to the first stop string."""
    room = lm_eval_requests.max_length(run.model, run.tokenizer) - harness.new_tokens
    read = [lm_eval_requests.prompt(run.tokenizer, context, room) for (context,) in texts]
    framed = [Prompt(text, own.context, 0, own.cut > 0, own.cut) for (text,), own in zip(texts, read, strict=True)]
    stops = tuple(stop for stop in harness.until if stop)
    contexts = [prompt.ids for prompt in framed]
    with _finite(run, framed, rows):
        outputs = greedy(
            run.model, run.tokenizer, contexts, harness.new_tokens, stops, run.suite["batch_tokens"], run.progress
        )
    written = run.tokenizer.batch_decode(outputs, skip_special_tokens=True)
    results = []
    for prompt, ids, text in zip(framed, outputs, written, strict=True):
        output = text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]
        result = {"output": output, "output_tokens": len(ids), "logprobs": [], "candidate_tokens": [], "priors": []}
        results.append((prompt, result))
    return results
