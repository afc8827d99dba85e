"""``rc-grpo check``: everything that can be known of a run before anything of it is started."""
