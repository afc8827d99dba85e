"""LoRA weights in a model, as adapters that train or merged into it; their files, here and on the Hub; their size."""
