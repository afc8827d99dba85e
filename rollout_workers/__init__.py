"""Rollout service: Ray actors that turn tasks into groups of candidate edits."""
