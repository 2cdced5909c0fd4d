"""Mini world: the inference task asked of things instead of animals, on other traits."""

from dataclasses import replace

from workflow.tasks import mini_inference

TASK = replace(mini_inference.TASK, train=None)
