"""The errors that are the user's to mend: each is one line that names the place, the finding and what is allowed."""


class StudyError(Exception):
    """Something in a config, a row, a checkpoint or a folder that its owner must change; shown without a traceback."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def shown(value: object) -> str:
    """A value as an error quotes it: its repr, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
