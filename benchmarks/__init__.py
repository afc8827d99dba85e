"""Scripts that measure; each leaves a file under benchmarks/results/."""
