"""One module for each check: `check(material)` yields findings, rows in the columns of `tables.AUDIT` without `check`.

A check of predictions has READS, the columns that it needs, and `read(test, material)`, what it keeps of one test of one model
(`inputs.TestRows`), None for nothing; `material.readings(__name__)` is what it kept of all. So predictions are read once for all
checks. With FIRST, names of keys, it reads only the first test with each of their values.

material: `inputs.AuditInputs`. The module's name is the check's name. Its first docstring line names what it looks for.
"""
