"""HotpotQA with the passage that fits the question best, which may not hold the answer."""

from dataclasses import replace

from workflow.data.prompts import WITH_CONTEXT
from workflow.tasks import hotpot_qa

TASK = replace(hotpot_qa.TASK, folder="hotpot_qa", domain="hotpot_qa", retrieved=True, templates=WITH_CONTEXT)
