"""Masks that are usable and unusual are told by task."""

import numpy as np

from rc_grpo.data import load_tasks
from rc_grpo.data.remarks import Remark, mask_remarks

from .conftest import HEIGHT, WIDTH, png, source_of


def test_masks_of_the_whole_image_or_of_less_than_a_token_are_told(lines) -> None:
    dot = np.zeros((HEIGHT, WIDTH), np.uint8)
    dot[3, 4] = 255
    files = {"whole.png": png(np.full((HEIGHT, WIDTH), 255, np.uint8)), "dot.png": png(dot)}
    tasks = load_tasks(source_of(lines({}, {"mask": "whole.png"}, {"mask": "dot.png"}, files=files)))
    whole, small = mask_remarks(tasks, resolution=64, token=16)
    assert whole == Remark("t1", "the mask covers the whole image, so that nothing is to be kept")
    assert small.task_id == "t2"
    assert "covers less than one token of 16x16 pixels of the edited image" in small.remark
