"""A training run: its wiring, and the five owners of what it is made of."""

from deploy.run.run import Run

__all__ = ["Run"]
