"""The errors that are the user's to mend: each is one line that names the place, the finding and what is allowed."""


class StudyError(Exception):
    """Something in a config, a row, a checkpoint or a folder that its owner must change; shown without a traceback."""


def told(error: BaseException) -> str | None:
    """The one line for an error that its user can mend: in the study, or a file that the system refuses; else None."""
    if isinstance(error, StudyError):
        return str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; expected a file or folder that can be read and written"
    return None


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def shown(value: object) -> str:
    """A value as an error quotes it: its repr, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
