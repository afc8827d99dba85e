"""What makes an editor fast on a GPU, whatever its family: compiled blocks, fused kernels, float8, FlashAttention 3."""
