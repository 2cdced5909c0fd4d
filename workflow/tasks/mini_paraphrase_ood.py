"""Mini world: the paraphrase task with the shortcut reversed."""

from dataclasses import replace

from workflow.tasks import mini_paraphrase

TASK = replace(mini_paraphrase.TASK, train=None)
