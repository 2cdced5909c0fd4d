"""2WikiMultihopQA with the passage that fits the question best, which may not hold the answer."""

from dataclasses import replace

from workflow.data.prompts import WITH_CONTEXT
from workflow.tasks import two_wiki_multihop_qa

TASK = replace(
    two_wiki_multihop_qa.TASK,
    folder="two_wiki_multihop_qa",
    domain="two_wiki_multihop_qa",
    retrieved=True,
    templates=WITH_CONTEXT,
)
