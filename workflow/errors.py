"""The errors that are the user's to mend: each is one line that names the place, the finding and what is allowed."""


class StudyError(Exception):
    """Something in a config, a row, a checkpoint or a folder that its owner must change; shown without a traceback."""
