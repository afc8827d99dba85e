"""Experiment trackers beside a run's own records: what goes to them, and how it gets there."""
