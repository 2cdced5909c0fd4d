"""Mini world: the question task on sentences about another event."""

from dataclasses import replace

from workflow.tasks import mini_question

TASK = replace(mini_question.TASK, train=None)
