"""Inputs and parameters of the rules in checkpoints.smk."""

import os

BASE_PINS = [
    f"resources/pins/bases/{grid.path(base, grid.BASE_KEYS)}.json"
    for base in grid.bases(STUDY).to_dict("records")
    if STUDY["families"][base["family"]]["source"] == "hub"
]


def pretraining(wildcards):
    """How the family is trained here."""
    return STUDY["families"][wildcards.family]["pretraining"]


def training(wildcards):
    """How a family is trained, whatever other steps it saves; a folder that it goes on from by its name alone."""
    block = {
        key: value for key, value in pretraining(wildcards).items() if key != "save"
    }
    start = block.get("continue_from", {})
    named = (
        {"folder": pathlib.Path(start["folder"]).name} if "folder" in start else start
    )
    return block | ({"continue_from": named} if start else {})


def previous_piece(wildcards):
    """The checkpoint of the saved step before; none for the first one."""
    saved = sorted(pretraining(wildcards)["save"])
    family, step = wildcards.family, int(wildcards.step)
    if step not in saved:
        raise StudyError(
            f"config.yaml: families/{family}/pretraining/save: {step} is not listed; found {saved}"
        )
    if step == saved[0]:
        return []
    before = {"family": family, "step": saved[saved.index(step) - 1]}
    return noted(f"resources/pretrained/{grid.path(before, grid.BASE_KEYS)}")


def pretraining_threads(wildcards):
    """Two threads; one where two would be all cores of this machine while jobs wait that need an earlier step."""
    family = STUDY["families"][wildcards.family]
    used = base_checkpoints.steps(wildcards.family, family)
    cores = workflow.resource_settings.cores if workflow.local_exec else None
    return 1 if min(used) < int(wildcards.step) and cores and cores <= 2 else 2


def corpus_made(wildcards):
    """The text that a family is trained on, where another job makes it."""
    made = corpora.made(pretraining(wildcards)["corpus"])
    return noted(made) if made else []


def corpus_contents(wildcards):
    """The text that a family is trained on, where it is the user's."""
    return content_hashes.of_files(given_texts(pretraining(wildcards), "train"))


def text_root(wildcards):
    """Where a family's corpus starts; none for text that another job makes, which no folder of rows concerns."""
    made = corpora.made(pretraining(wildcards)["corpus"])
    return given_folder(None if made else STUDY["data_root"])


def start_folder(wildcards):
    """The folder that a family goes on from; none where it starts from scratch or from another family."""
    return given_folder(pretraining(wildcards).get("continue_from", {}).get("folder"))


def start_base(wildcards):
    """The base of another family that a family goes on from."""
    start = pretraining(wildcards).get("continue_from", {})
    own = "family" in start
    return expand(f"resources/bases/{BASE}/base.json", **start) if own else []


def start_files(wildcards):
    """The files of a checkpoint's folder that a family goes on from."""
    start = pretraining(wildcards).get("continue_from", {})
    return (
        base_checkpoints.checkpoint_files(start["folder"]) if "folder" in start else []
    )


def start_contents(wildcards):
    """What the files hold that a family goes on from."""
    return content_hashes.of_files(start_files(wildcards))


def averaged_bases(wildcards):
    """The bases that a mean is made of."""
    family = STUDY["families"][wildcards.family]
    steps = base_checkpoints.averaged(family, STUDY["families"], int(wildcards.step))
    return expand(
        f"resources/bases/{BASE}/base.json", family=family["family"], step=steps
    )


def averaged_root(wildcards):
    """The folder of the local family that a mean is made of; none of others."""
    family = STUDY["families"][STUDY["families"][wildcards.family]["family"]]
    return given_folder(family["path"] if family["source"] == "folder" else None)


def averaged_folders(wildcards):
    """Where the checkpoints of a mean lie in the folder of a local family; each none for other families."""
    family = STUDY["families"][wildcards.family]
    name, root = family["family"], averaged_root(wildcards)
    steps = base_checkpoints.averaged(family, STUDY["families"], int(wildcards.step))
    found = [
        base_checkpoints.folder(name, STUDY["families"][name], step) for step in steps
    ]
    return [root and os.path.relpath(folder, root) for folder in found]


def checkpoint(wildcards):
    """What a base is made from: the family's training here, a mean that is made here, or what is pinned on the hub."""
    source = STUDY["families"][wildcards.family]["source"]
    if source == "merged":
        return noted(f"resources/averaged/{grid.path(wildcards, grid.BASE_KEYS)}")
    if source == "hub":
        return [f"resources/pins/bases/{grid.path(wildcards, grid.BASE_KEYS)}.json"]
    trained = f"resources/pretrained/{grid.path(wildcards, grid.BASE_KEYS)}"
    return noted(trained) if source == "trained" else []


def base_contents(wildcards):
    """What tells the files of a base in a local folder from those that were there before."""
    family, path = STUDY["families"][wildcards.family], grid.path(
        wildcards, grid.BASE_KEYS
    )
    manifest = pathlib.Path(f"resources/bases/{path}/base.json")
    return content_hashes.of_checkpoint(
        base_checkpoints.files(wildcards.family, family, int(wildcards.step)),
        base_checkpoints.read_base(manifest) if manifest.is_file() else None,
    )


def source(wildcards):
    """Where a base comes from; what concerns the family's other steps left out, so that a new one leaves this one alone."""
    family = STUDY["families"][wildcards.family]
    # What counts of a folder is what it holds, wherever it lies.
    read = {"source"}
    if family["source"] == "hub":
        read |= {"repo", "repos", "pattern"}
    if family.get("main_step") == int(wildcards.step):
        read.add("main_step")
    if "repos" in family:
        own = [
            entry for entry in family["repos"] if entry["step"] == int(wildcards.step)
        ]
        family = {**family, "repos": own}
    return {key: value for key, value in family.items() if key in read}
