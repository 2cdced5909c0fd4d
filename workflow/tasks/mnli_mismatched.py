"""MNLI, mismatched: the same task and training rows as MNLI, tested on genres that training lacks (Williams et al., 2018).

It counts as MNLI's second in-domain test, as in arXiv 2408.06663.
"""

from dataclasses import replace

from workflow.tasks import mnli

TASK = replace(mnli.TASK, test="validation_mismatched", files={}, domain="mnli")
