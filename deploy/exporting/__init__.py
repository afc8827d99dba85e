"""``rc-grpo export``: a run's LoRA in the layout of whoever is to load it, with a card, and on the Hugging Face Hub."""
