"""What can go wrong with the learner as a whole."""


class LearnerLostError(RuntimeError):
    """A rank is gone, hangs, or has lost what it was to learn from. What the others hold is of an unfinished update."""
