"""The page `results/report.html`: one file that answers which checkpoint to fine-tune, with the evidence below the answer.

One module for each part: `answers` and `cards` (first screen), `forgetting`, `settling`, `questions` (findings), `charts`
(figures), `changed_rows`, `audit_groups`, `data_tables`; `rendering` puts them together.
"""
