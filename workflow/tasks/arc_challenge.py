"""ARC, challenge set: the exam questions that retrieval and word co-occurrence get wrong (Clark et al., 2018)."""

from dataclasses import replace

from workflow.tasks import arc_easy

TASK = replace(arc_easy.TASK, subset="ARC-Challenge", sizes={"train": 1_119, "validation": 299})
