"""A judge's server: one that is started and cared for, or one that runs already, and what it is shown and counts."""
