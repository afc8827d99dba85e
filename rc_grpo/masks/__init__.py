"""Masks for data that have none: by the difference of source and target, by detectors, by an editor's attention."""
