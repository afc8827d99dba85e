"""The one error a caller of this folder sees."""


class DataError(ValueError):
    """The data set is not usable; the message names the file or the task, the reason and the way out."""
