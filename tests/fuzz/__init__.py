"""Fuzzing: inputs of strangers, mutated from valid ones, against what their readers promise (`make fuzz`)."""
