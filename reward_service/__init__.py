"""Reward service: Ray actors that judge groups of candidate edits."""
