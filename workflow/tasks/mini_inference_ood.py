"""Mini world: the inference task with premises in other words."""

from dataclasses import replace

from workflow.tasks import mini_inference

TASK = replace(mini_inference.TASK, train=None)
