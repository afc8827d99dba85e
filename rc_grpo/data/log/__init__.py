"""Experience kept: what an update learned from, one row a candidate, and read again as the messages it was."""
