"""Judges without a server: measures and small models that score in the actor's own process, on its CPU or GPU."""
