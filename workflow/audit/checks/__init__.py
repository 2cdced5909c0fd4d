"""One module for each check: `check(material)` -> findings, rows in the columns of `tables.AUDIT` without `check`.

material: `inputs.Material`. A module's name is the check's name; its first docstring line says what is looked for.
"""
