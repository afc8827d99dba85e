"""The blind preference study: people choose among the edits of several models without knowing whose they are."""
