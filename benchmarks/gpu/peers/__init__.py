"""Rivals' own code and ours on one card: seconds a candidate, seconds a trained step, peak memory."""
