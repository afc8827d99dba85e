"""What can go wrong with the learner as a whole."""


class LearnerLostError(RuntimeError):
    """A rank is gone, hangs, or has lost what it was to learn from. What the others hold is of an unfinished update."""


class UnsharedFolderError(RuntimeError):
    """A rank does not see what the driver wrote: what it writes itself would be on a disk that nobody looks at."""


class NonFiniteError(RuntimeError):
    """An update made a NaN or an infinity; nothing of it was published or saved. Made again it would be the same."""
