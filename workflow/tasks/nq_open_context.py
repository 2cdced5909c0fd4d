"""Natural Questions, open with the passage that fits the question best, which may not hold the answer."""

from dataclasses import replace

from workflow.data.prompts import WITH_CONTEXT
from workflow.tasks import nq_open

TASK = replace(nq_open.TASK, folder="nq_open", domain="nq_open", retrieved=True, templates=WITH_CONTEXT)
