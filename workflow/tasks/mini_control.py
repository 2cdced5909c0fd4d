"""Mini world: rows like those of the inference task with random labels, where nothing can be learned."""

from workflow.tasks import mini_inference

TASK = mini_inference.TASK
