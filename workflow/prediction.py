"""Predictions of one model on one suite: log-probabilities of labels and choices, greedy text.

Three methods (`task.KINDS`): `label` and `rank` compare the log-probabilities of candidates given the prompt, `generate`
writes greedily. Protocols differ as the design of the two studies demands; see `demonstrations`, `_pooled` and `_whole`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from workflow import prompts
from workflow.encoding import Framing, Prompt, batches, context_length, fitted, left_padded, opening, padding, split
from workflow.errors import StudyError
from workflow.task import KINDS, Example, Task

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

Rows = Sequence[tuple[str, Example]]
Progress = Callable[[int, int], None]


def demonstrations(train: Rows, test: Rows, shots: int, seed: int, protocol: str) -> tuple[list[Example], set[str]]:
    """Demonstrations, and the ids of test rows that must not be scored because they are among them.

    `published`: the first rows of the test split, which are scored all the same (arXiv 2408.06663, released code).
    `sound`: drawn by the seed from the training split; where a task has none, from test rows, which are then not scored.
    """
    if protocol == "published":
        return [example for _, example in test[:shots]], set()
    pool = train or test
    drawn = random.Random(seed).sample(list(pool), min(shots, len(pool)))
    return [example for _, example in drawn], {row for row, _ in drawn} if not train else set()


def sample(rows: Rows, limit: int | None, seed: int) -> Rows:
    """At most `limit` rows drawn by the seed, in the order they had."""
    if limit is None or limit >= len(rows):
        return rows
    chosen = sorted(random.Random(seed).sample(range(len(rows)), limit))
    return [rows[number] for number in chosen]


Request = tuple[Sequence[int], Sequence[int]]
Reading = tuple[int, int, Sequence[int]]


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel,
    requests: Sequence[Request],
    pad: int,
    batch_tokens: int,
    progress: Progress | None = None,
) -> list[float]:
    """Summed log-probability, in nats, of each request's continuation given its context (token ids, neither empty).

    An input fed once serves every continuation that it contains: the one-token labels of a prompt cost one row together.
    """
    inputs, readings = _rows_to_feed(requests)
    sums = [0.0] * len(requests)
    done = 0
    for batch in batches([len(row) for row in inputs], batch_tokens):
        depth = 1 + max(len(inputs[row]) - start for row in batch for _, start, _ in readings[row])
        fed = left_padded([inputs[row] for row in batch], pad, model.device)
        scores = model(**fed, logits_to_keep=depth, use_cache=False).logits.float().log_softmax(dim=-1)
        for line, row in enumerate(batch):
            for request, start, ids in readings[row]:
                first = depth - len(inputs[row]) + start - 1
                picked = scores[line, range(first, first + len(ids)), list(ids)]
                sums[request] = float(picked.double().sum())
        done += len(batch)
        if progress:
            progress(done, len(inputs))
    return sums


def _rows_to_feed(requests: Sequence[Request]) -> tuple[list[list[int]], list[list[Reading]]]:
    """Inputs that hold every continuation but its last token, shared by neighbouring requests with one context.

    A reading of an input is (request, start of its continuation, its ids).
    """
    inputs: list[list[int]] = []
    readings: list[list[Reading]] = []
    for context, group in itertools.groupby(range(len(requests)), key=lambda number: requests[number][0]):
        own: list[int] = []
        for request in sorted(group, key=lambda number: -len(requests[number][1])):
            ids = requests[request][1]
            needed = [*context, *ids[:-1]]
            row = next((row for row in own if inputs[row][: len(needed)] == needed), None)
            if row is None:
                row = len(inputs)
                inputs.append(needed)
                readings.append([])
                own.append(row)
            readings[row].append((request, len(context), ids))
    return inputs, readings


@torch.inference_mode()
def greedy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    contexts: Sequence[Sequence[int]],
    new_tokens: int,
    stops: Sequence[str],
    batch_tokens: int,
    progress: Progress | None = None,
) -> list[list[int]]:
    """Greedily generated token ids after each context: up to EOS, a stop string or `new_tokens`; EOS left out."""
    from transformers import GenerationConfig, StoppingCriteriaList

    end, pad = tokenizer.eos_token_id, padding(tokenizer)
    # Rows that are done are filled up with EOS, so that what a row wrote ends at its first EOS, however it was stopped.
    settings = GenerationConfig(do_sample=False, max_new_tokens=new_tokens, eos_token_id=end, pad_token_id=end)
    outputs: list[list[int]] = [[] for _ in contexts]
    done = 0
    for batch in batches([len(context) + new_tokens for context in contexts], batch_tokens):
        fed = left_padded([contexts[row] for row in batch], pad, model.device)
        width = fed["input_ids"].shape[1]
        criteria = StoppingCriteriaList([_stop_at(tokenizer, stops, width)] if stops else [])
        with _defaults(model, settings):
            produced = model.generate(**fed, generation_config=settings, stopping_criteria=criteria)[:, width:]
        for row, ids in zip(batch, produced.tolist(), strict=True):
            outputs[row] = ids[: ids.index(end)] if end in ids else ids
        done += len(batch)
        if progress:
            progress(done, len(contexts))
    return outputs


@contextlib.contextmanager
def _defaults(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """Keep the checkpoint's own generation settings out: `generate` fills gaps with them, such as a repetition penalty."""
    own, model.generation_config = model.generation_config, settings
    try:
        yield
    finally:
        model.generation_config = own


def _stop_at(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], width: int) -> Callable[..., torch.Tensor]:
    """A criterion that is true for the rows whose generated text holds a stop string."""

    def reached(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        texts = tokenizer.batch_decode(ids[:, width:], skip_special_tokens=True)
        return torch.tensor([any(stop in text for stop in stops) for text in texts], device=ids.device)

    return reached


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """Text before its first stop string, without surrounding white space."""
    ends = [text.index(stop) for stop in stops if stop in text]
    return text[: min(ends, default=len(text))].strip()


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
    for name in suite["tests"]:
        task, train, test = tests[name]
        for format in suite["formats"]:
            for shots in suite["shots"]:
                keys = {"test": name, "test_format": format, "shots": shots}
                rows = predict_test(model, tokenizer, suite, task, train, test, format, shots, progress)
                if not rows:
                    raise StudyError(
                        f"test '{name}': {shots} demonstrations take all {len(test)} rows; allowed: fewer than {len(test)}"
                    )
                for row in rows:
                    yield {**keys, **row}


def predict_test(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suite: Mapping[str, Any],
    task: Task,
    train: Rows,
    test: Rows,
    format: str,
    shots: int,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Predictions of one test in one format with a number of demonstrations."""
    shown, unscored = demonstrations(train, test, shots, suite["seed"], suite["protocol"])
    chosen = sample([row for row in test if row[0] not in unscored], suite.get("limit"), suite["seed"])
    generated = KINDS[task.kind].method == "generate" or (suite["labels"] == "generate" and bool(task.labels))
    longest = new_token_limit(task, suite) if generated else _longest_answer(tokenizer, chosen)
    room = None if suite["protocol"] == "published" else context_length(model) - longest
    framing = Framing(task, format, suite["protocol"], tuple(shown), room)
    found = [fitted(tokenizer, framing, example) for _, example in chosen]
    answer = _written if generated else _compared
    answers = answer(model, tokenizer, suite, framing, found, chosen, progress)
    return [
        {
            "id": row,
            "prompt_sha256": hashlib.sha256(prompt.text.encode()).hexdigest(),
            "prompt_tokens": prompt.tokens,
            "shots_used": prompt.shots,
            "truncated": prompt.truncated,
            "reference": example.answer,
            "choices": list(example.choices),
            "gold": example.gold,
            **result,
        }
        for (row, example), prompt, result in zip(chosen, found, answers, strict=True)
    ]


def _longest_answer(tokenizer: PreTrainedTokenizerBase, rows: Rows) -> int:
    """Tokens of the longest choice of all rows, with its lead where there are leads: what a prompt must leave room for."""
    leads = [row.leads or ("",) * len(row.choices) for _, row in rows]
    answers = [
        prompts.completion(lead + choice)
        for (_, row), own in zip(rows, leads, strict=True)
        for lead, choice in zip(own, row.choices, strict=True)
    ]
    return max(map(len, tokenizer(answers, add_special_tokens=False)["input_ids"])) if answers else 0


def _compared(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suite: Mapping[str, Any],
    framing: Framing,
    found: Sequence[Prompt],
    rows: Rows,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Label or choice with the highest log-probability of each row; a tie goes to the first in order.

    Errors: StudyError for a row whose log-probabilities are not finite numbers.
    """
    candidates = _pooled if framing.protocol == "published" and framing.task.labels else _whole
    pools = [candidates(tokenizer, prompt, example) for prompt, (_, example) in zip(found, rows, strict=True)]
    requests = [request for row in pools for pool in row for request in pool]
    sums = iter(log_probabilities(model, requests, padding(tokenizer), suite["batch_tokens"], progress))
    results = []
    for row, (place, example) in zip(pools, rows, strict=True):
        values = [max(next(sums) for _ in pool) for pool in row]
        if not all(map(math.isfinite, values)):
            raise StudyError(
                f"row '{place}': log-probabilities {values}, expected finite numbers; see weights and precision"
            )
        best = values.index(max(values))
        tokens = [len(pool[0][1]) for pool in row]
        results.append({"output": example.choices[best], "logprobs": values, "candidate_tokens": tokens})
    return results


def _whole(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, example: Example) -> list[list[Request]]:
    """One request for each choice: all its tokens after the prompt and the choice's lead."""
    # A trailing space of the prompt goes to the choice, as in running text (and in lm-evaluation-harness).
    text = prompt.text.rstrip(" ")
    if not example.leads:
        return [[part] for part in split(tokenizer, text, [prompts.completion(choice) for choice in example.choices])]
    pairs = zip(example.leads, example.choices, strict=True)
    return [split(tokenizer, text + prompts.completion(lead), [choice]) for lead, choice in pairs]


def _pooled(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, example: Example) -> list[list[Request]]:
    """Published candidates of each label: every token of both its spellings, plain and led by a space, one by one.

    Source: released code of arXiv 2408.06663 (`--constraint_type next_word`): the middle pieces of a word count as well.
    """
    context = tokenizer(prompt.text)["input_ids"]
    spelled = [[word, f" {word}"] for word in example.choices]
    pieces = [tokenizer(pair, add_special_tokens=False)["input_ids"] for pair in spelled]
    return [[(context, [token]) for token in dict.fromkeys(pair[0] + pair[1])] for pair in pieces]


def _written(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suite: Mapping[str, Any],
    framing: Framing,
    found: Sequence[Prompt],
    rows: Rows,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Greedy text of each row: label words have five new tokens, text the suite's number; `sound` stops at the format's end."""
    sound = framing.protocol == "sound"
    stops = prompts.STOPS[framing.format] if sound else ()
    new_tokens = new_token_limit(framing.task, suite)
    contexts = [tokenizer(prompt.text)["input_ids"] or opening(tokenizer) for prompt in found]
    outputs = greedy(model, tokenizer, contexts, new_tokens, stops, suite["batch_tokens"], progress)
    texts = tokenizer.batch_decode(outputs, skip_special_tokens=True)
    return [
        {
            "output": cut_at_stop(text, stops) if sound else text,
            "output_tokens": len(ids),
            "logprobs": [],
            "candidate_tokens": [],
        }
        for ids, text in zip(outputs, texts, strict=True)
    ]


def new_token_limit(task: Task, suite: Mapping[str, Any]) -> int:
    """Longest generation in tokens: label words have their kind's own limit, text the suite's."""
    return KINDS[task.kind].new_tokens if task.labels else suite["new_tokens"]
