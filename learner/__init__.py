"""Learner service: DeepSpeed ranks as Ray actors that turn scored groups into new LoRA weights."""
