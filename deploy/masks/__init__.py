"""``rc-grpo masks``: a data set with masks from one without."""
