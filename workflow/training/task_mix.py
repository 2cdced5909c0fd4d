"""The rows of a fine-tuning on several tasks: how many of each, and which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

from workflow.errors import StudyError
from workflow.settings import Recipe
from workflow.training import finetuning

Item = TypeVar("Item")


def divided(rows: Mapping[str, Sequence[Item]], recipe: Recipe) -> dict[str, tuple[list[Item], list[Item]]]:
    """Return training and validation rows of each task of the recipe's `mix`, drawn as `finetuning.divided` draws them.

    Each task has its share of both. The rows of a task are the first of those that a fine-tuning on it alone has with the same
    `sample_seed`. No row is repeated: where a task has too few, the others have fewer as well, so that the shares hold.
    Errors: StudyError if a task has no row, or a search too few.
    """
    training, validation = numbers({name: len(own) for name, own in rows.items()}, recipe)
    return {
        name: finetuning.divided(own, _alone(recipe, training[name], validation[name])) for name, own in rows.items()
    }


def _alone(recipe: Recipe, training: int, validation: int) -> Recipe:
    """Return the recipe with these numbers of rows."""
    settings = {key: value for key, value in recipe.items() if key not in ("fraction", "search", "mix")}
    searched = {"search": {"validation": validation}} if validation else {}
    return cast(Recipe, {**settings, "examples": training, **searched})


def numbers(rows: Mapping[str, int], recipe: Recipe) -> tuple[dict[str, int], dict[str, int]]:
    """Return the numbers of training rows and of validation rows of each task.

    rows: of each task's training split. `examples` is the number of training rows of all tasks together, `fraction` a share of
    the most that keep the shares without repeating a row. Errors: StudyError as for `divided`.
    """
    mix = recipe["mix"]
    validation = by_share(recipe["search"]["validation"] if "search" in recipe else 0, mix)
    most = int(min(rows[name] / share for name, share in mix.items()))
    while most and any(by_share(most, mix)[name] + validation[name] > rows[name] for name in mix):
        most -= 1
    total = recipe.get("examples", most)
    if "fraction" in recipe:
        total = max(1, round(recipe["fraction"] * most))
    if "search" in recipe and total > most:
        raise StudyError(
            f"the mix has {most} training rows at most, {total} are too many; lower examples or search/validation"
        )
    training = by_share(min(total, most), mix)
    if lacking := ", ".join(name for name, number in training.items() if not number):
        rows_left = f"{min(total, most)} training rows of the mix"
        raise StudyError(f"{rows_left} have none of {lacking}; raise examples or the task's share")
    return training, validation


def by_share(total: int, mix: Mapping[str, float]) -> dict[str, int]:
    """Return whole numbers that add up to a total, by shares: rounded down, the rest to the largest remainders (Hare)."""
    exact = {name: total * share for name, share in mix.items()}
    counts = {name: int(number + 1e-9) for name, number in exact.items()}
    order = sorted(mix, key=lambda name: counts[name] - exact[name])
    for name in order[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
