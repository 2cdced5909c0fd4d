"""One module for each check: `check(material)` yields findings, rows in the columns of `tables.AUDIT` without `check`.

material: `inputs.AuditInputs`. The module's name is the check's name. Its first docstring line names what it looks for.
"""
