"""Measuring edits: metrics that need no judge."""
