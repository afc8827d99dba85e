"""What is worth a look in a data set that is usable: nothing here refuses a task."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rc_grpo.editor.geometry import binary_mask, mask_remark
from rc_grpo.messages import EditTask


@dataclass(frozen=True)
class Remark:
    """Something unusual about a task."""

    task_id: str
    remark: str


def mask_remarks(tasks: Iterable[EditTask], resolution: int, token: int) -> Iterator[Remark]:
    """Yield the tasks whose masks cover the whole image, or less than one token.

    Args:
        tasks: each is opened.
        resolution: ``editor.resolution``.
        token: side of the editor's tokens in pixels (`rc_grpo.editor.family.Architecture`).
    """
    for task in tasks:
        if remark := mask_remark(binary_mask(task.mask), resolution, token):
            yield Remark(task.task_id, remark)
