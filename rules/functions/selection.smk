"""Inputs and parameters of the rules in selection.smk."""

from workflow.storage import tables
from workflow.study import selection

NAMES = selection.named(CANDIDATES.to_numpy())


def recorded_round(number):
    """The facts of a round; Snakemake makes the round first if it is not made."""
    return tables.recorded(checkpoints.decide.get(round=str(number)).output[0])


def kept_round(number):
    """The facts of a round that chose candidates, as it stands; none of a round to make, or to make anew."""
    path = selection.round_path(int(number))
    facts = tables.recorded(path) if path.is_file() else {"batch": []}
    return facts if facts["batch"] else None


def tuned_in(rounds):
    """The candidates that these rounds chose."""
    known = set(NAMES)
    return [one for facts in rounds for one in selection.batch(facts) if one in known]


def tuned_now():
    """The candidates that are chosen so far."""
    return tuned_in(selection.rounds())


def needed_parts(names, tuned):
    """The parts that a round reads: indicators and untouched scores of candidates, scores of the tuned ones."""
    bases = dict.fromkeys(one[:2] for one in names)
    measured = [
        f"results/indicators/family={family}/step={step}/part.parquet"
        for family, step in bases
        if set(RUN_FOR) & set(selection.indicator_names(STUDY))
    ]
    cells = [selection.untouched(STUDY, names), selection.cells(STUDY, tuned)]
    return measured + [
        part
        for rows in cells
        for folder in ("scores", "items")
        for part in parts(folder, grid.PART_KEYS, rows)
    ]


def asked_selection():
    """End the run of a study without a selection: Snakemake would show another error with a traceback."""
    if STUDY["selection"] is None:
        sys.exit("config.yaml: selection: missing; expected a goal and a budget")


def round_parts(wildcards):
    """What a round reads. A round that chose stays as it is, whatever is added to the study."""
    asked_selection()
    before = [recorded_round(number) for number in range(1, int(wildcards.round))]
    kept = kept_round(wildcards.round)
    if kept is None:
        return needed_parts(NAMES, tuned_in(before))
    names = [one for one in selection.named(kept["candidates"]) if one in set(NAMES)]
    return [ancient(path) for path in needed_parts(names, tuned_in(before))]


def round_candidates(wildcards):
    """The candidates of a round: of one that chose as it was then, else all."""
    kept = kept_round(wildcards.round)
    return selection.named(kept["candidates"]) if kept else NAMES


def tuned_before(wildcards):
    """The candidates that earlier rounds chose."""
    before = [
        recorded_round(number)
        for number in range(1, int(wildcards.round))
        if selection.round_path(number).is_file()
    ]
    return tuned_in(before)


def question(wildcards):
    """What a round was asked: of a round that chose as it was then, else as it is now."""
    kept = kept_round(wildcards.round)
    return kept["question"] if kept else selection.fingerprint(STUDY)


def known_parts(wildcards):
    """What is known now."""
    asked_selection()
    return needed_parts(NAMES, tuned_now())


def last_round(wildcards):
    """The round that ended the selection; each earlier one is made first, with its fine-tuning."""
    asked_selection()
    number = 1
    while recorded_round(number)["batch"]:
        number += 1
    return str(selection.round_path(number))
