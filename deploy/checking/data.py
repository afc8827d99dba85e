"""The data of a run: every fault of every task, and what is unusual about those without one."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice

from deploy.checking.finding import Finding, finding
from deploy.evaluating.tasks import InstructionCheck, check_needs
from rc_grpo.config import RunConfig, TaskSource
from rc_grpo.data import TaskSet, faults, load_tasks
from rc_grpo.data.load import Purpose
from rc_grpo.data.remarks import Remark, mask_remarks
from rc_grpo.editor.loading import load_architecture, load_text_counter

OPENED, OPENED_OF_GENERATED = 10_000, 100
"""So many tasks are opened to look at text and mask; a generator's are all of a kind."""

_NAMED = 3


def check_data(config: RunConfig) -> Iterator[Finding]:
    """Yield what is found of training and held-out tasks."""
    loaded: dict[str, TaskSet] = {}
    if config.loop.feed is None:
        yield from _check_source(config, config.data.train, "data.train", "train", None, loaded)
    if config.data.heldout is not None and config.evaluation.tasks:
        limit = config.evaluation.tasks
        yield from _check_source(config, config.data.heldout, "data.heldout", "evaluate", limit, loaded)
    if len(loaded) == 2:
        yield from _check_apart(*loaded.values())


def _check_source(
    config: RunConfig, source: TaskSource, branch: str, purpose: Purpose, limit: int | None, loaded: dict[str, TaskSet]
) -> Iterator[Finding]:
    """Yield what is found of one source; its tasks, if they can be used, are left in ``loaded``."""
    objection = InstructionCheck(config.editor)
    refused = faults(source, purpose, objection)
    skips = source.on_bad_task == "skip"
    for item in refused:
        place = f"{item.task_id} ({item.place})" if item.task_id else item.place
        left_out = skips and item.task_id
        yield Finding(branch, "note" if left_out else "fault", f"{place}: {item.reason}")
    if any(not (skips and item.task_id) for item in refused):
        return

    def count() -> str:
        loaded[branch] = load_tasks(source, purpose, objection)
        return f"{len(loaded[branch][:limit])} tasks" + (f", {len(refused)} left out" if refused else "")

    yield finding(branch, count)
    if branch in loaded:
        tasks = loaded[branch][:limit]
        yield from _looked_at(config, tasks, branch)
        yield finding(branch, lambda: _needs(config, source, tasks, branch))


def _looked_at(config: RunConfig, tasks: TaskSet, branch: str) -> Iterator[Finding]:
    """Yield how long instructions are and what is unusual about masks; each task is opened once, and let go."""
    size, count = load_architecture(config.editor), load_text_counter(config.editor)
    longest, opened, referring = count(""), 0, 0
    cut: list[str] = []
    remarks: list[Remark] = []
    for task in islice(tasks, OPENED if tasks.reader is not None else OPENED_OF_GENERATED):
        opened += 1
        referring += bool(task.references)
        length = count(task.instruction)
        longest = max(longest, length, key=lambda length: length.tokens)
        cut += [length.cut] if length.cut is not None else []
        remarks += mask_remarks([task], config.editor.resolution, size.token)
    of = f"of {opened} tasks" if opened == len(tasks) else f"of the first {opened} tasks"
    told = f"the longest instruction {of} has {longest.tokens} of {longest.slots} tokens"
    yield Finding(branch, "note", f"{told}; {len(cut)} are long: {cut[0]}") if cut else Finding(branch, "fine", told)
    if referring:
        shown = "the editor sees them; judges of this package are shown source and edit alone"
        yield Finding(branch, "note", f"{referring} {of} have references: {shown}")
    for remark, number in Counter(remark.remark for remark in remarks).most_common():
        named = ", ".join(islice((item.task_id for item in remarks if item.remark == remark), _NAMED))
        yield Finding(branch, "note", f"{number} masks {of}: {remark} ({named}{', ...' if number > _NAMED else ''})")
    if not remarks:
        yield Finding(branch, "fine", f"the masks {of} cover a part of the image, and at least a token")


def _needs(config: RunConfig, source: TaskSource, tasks: TaskSet, branch: str) -> str:
    check_needs(config.reward, source, tasks, branch)
    return f"every task has what the judges ({', '.join(config.reward.judges)}) need"


def _check_apart(train: TaskSet, heldout: TaskSet) -> Iterator[Finding]:
    """Held-out tasks that are trained on measure nothing."""
    both = train.row_of.keys() & heldout.row_of.keys()
    if both:
        named = ", ".join(sorted(both)[:_NAMED])
        yield Finding("data.heldout", "note", f"{len(both)} tasks have the id of a training task ({named})")
