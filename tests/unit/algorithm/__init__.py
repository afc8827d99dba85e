"""A package, so that these modules share `strategies` and clash with no other folder's names."""
