"""CompBench: its samples and its metrics, as published and without their traps; its table, and the paper's numbers."""
