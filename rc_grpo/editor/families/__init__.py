"""Editor families: what is particular to each model, one folder a family; see `rc_grpo.editor.family`."""
