"""FLUX.1 Kontext at full size on one GPU: what rollouts, updates and weight swaps cost, beside stock diffusers."""
