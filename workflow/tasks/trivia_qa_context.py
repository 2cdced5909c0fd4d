"""TriviaQA with the passage that fits the question best, which may not hold the answer."""

from dataclasses import replace

from workflow.data.prompts import WITH_CONTEXT
from workflow.tasks import trivia_qa

TASK = replace(trivia_qa.TASK, folder="trivia_qa", domain="trivia_qa", retrieved=True, templates=WITH_CONTEXT)
