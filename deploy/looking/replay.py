"""Rule 2 of the design as a command: a logged group is rolled out again, and what differs from the log is said.

No Ray: a rollout is a function of task, seeds, policy and solver, and this process computes it as a worker does.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from deploy.batches.exploring import choice
from deploy.looking.replay_report import Comparison, ReplayReport, Surrounding, compare
from deploy.outputs import check_picture
from deploy.records.data import changes_of_task
from deploy.records.folder import RunFolder
from deploy.records.provenance import provenance
from rc_grpo.config import RunConfig, load
from rc_grpo.data import load_tasks
from rc_grpo.data.log.experience import read_experience
from rc_grpo.data.log.logged import LoggedGroup, read_groups
from rc_grpo.data.log.policies import PolicyStore
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.loading import load_exploring_editor, load_rollout_editor
from rc_grpo.messages import CandidateGroup, Conditions, EditTask, PolicyVersion, RolloutSeeds, VersionMismatchError
from rc_grpo.seeds import GENERATOR
from rollout_workers.rollout import PreparedTask, explore, image_digests, prepare, roll_out

WHO = "replay"


class ReplayError(ValueError):
    """A group cannot be replayed; the message names what is missing or has changed, and the way out."""


def replay(run: Path, group: str) -> ReplayReport:
    """Rebuild a group of a run from its seeds and policy digest, and compare it with the log.

    Bits are promised on the same device, with the same threads and versions, for the same batch shape.

    Args:
        run: the run's folder.
        group: ``UPDATE/TASK_ID``, as ``12/pocket-train-00003``; with ``#2`` behind it the second group of that task,
            where an update holds several. An update alone is its first group.

    Returns:
        What was compared: as much as ``output.experience`` logged.

    Raises:
        ReplayError: there is no such run or group, or its task or editor is not what it was.
        rc_grpo.data.log.policies.PolicyNotKeptError: the weights are not there.
        rc_grpo.data.log.policies.PolicyAlteredError: they are not what they were.
        rc_grpo.data.DataError: the run's training data cannot be read.
    """
    if not (run / "config.yaml").is_file():
        raise ReplayError(f"no run at {run}: there is no config.yaml in it (a run's folder is runs/NAME)")
    config = load(run / "config.yaml")
    logged = _find_group(run, config, group)
    policy = logged.candidates.policy
    weights = _weights(run, policy)
    task = _find_task(RunFolder(run), config, logged)
    torch.set_num_threads(config.rollout.threads)
    editor = load_rollout_editor(config.editor, config.rollout, config.seed)
    _adopt(editor, policy, weights, run, config)
    prepared = prepare(editor, task, config.rollout)
    rolled_out = roll_out(
        editor, task.task_id, prepared, logged.candidates.seeds, policy, config.rollout, worker=WHO
    ).to_arrow()
    # Through Arrow as on the way to the log: sums over an array of another memory layout differ in their last bits.
    replayed = CandidateGroup.from_arrow(rolled_out)
    return ReplayReport(
        group=group,
        task=task,
        logged=logged,
        replayed=replayed,
        comparisons=(
            *_comparisons(logged, replayed, prepared.conditions),
            *_of_the_pool(run, config, logged, editor, prepared),
        ),
        surroundings=tuple(_surroundings(run, config, editor.device)),
    )


def _of_the_pool(
    run: Path, config: RunConfig, logged: LoggedGroup, editor: Editor, prepared: PreparedTask
) -> Iterator[Comparison]:
    """Make the pool again that a group was chosen from, and yield whether its images and the choice are the log's."""
    pool = logged.scores.explored
    if pool is None:
        return
    if config.rollout.explore is None:
        raise ReplayError(f"the group was chosen from a pool, and config.yaml of {run} has no rollout.explore")
    explorer = load_exploring_editor(editor, config.editor, config.rollout, config.seed)
    if explorer is not editor or pool.policy != logged.candidates.policy:
        _adopt(explorer, pool.policy, _weights(run, pool.policy), run, config)
    again = explore(explorer, logged.task_id, prepared, pool.seeds, pool.policy, config.rollout, worker=WHO)
    digests = (_bytes_of(images) for images in (pool.images, image_digests(again.images)))
    yield compare("the pool's images", *digests)
    chosen = choice(pool.rewards, config.reward.weights, logged.candidates.size)
    yield compare("the choice", np.array(pool.chosen), np.array(chosen or ()))
    yield compare("the chosen seeds", _numbers(logged.candidates.seeds), _numbers(pool.seeds.of(pool.chosen)))


def _bytes_of(digests: Sequence[str]) -> NDArray[np.uint8]:
    return np.array([list(bytes.fromhex(digest)) for digest in digests], dtype=np.uint8)


def _numbers(seeds: RolloutSeeds) -> NDArray[np.int64]:
    return np.array([seeds.reference, *seeds.deltas], dtype=np.int64)


def _weights(run: Path, policy: PolicyVersion) -> NDArray[np.uint8]:
    return np.frombuffer(PolicyStore(run / "policies").load(policy.number, policy.digest), dtype=np.uint8)


def _adopt(editor: Editor, policy: PolicyVersion, weights: NDArray[np.uint8], run: Path, config: RunConfig) -> None:
    try:
        editor.adopt(policy, weights, worker=WHO)
    except VersionMismatchError as error:
        raise ReplayError(f"editor.model {config.editor.model!r} is not what {run} trained: {error}") from error


def show_replay(run: Path, group: str, sheet: Path | None, console: Console) -> bool:
    """Replay a group, print what differs, and tell whether nothing does; see `replay`.

    Args:
        run: the run's folder.
        group: which one.
        sheet: picture of logged and replayed images side by side; None draws none.
        console: to print on.
    """
    check_picture(sheet, "--sheet")
    report = replay(run, group)
    report.render(console)
    if sheet is not None:
        report.sheet().save(sheet)
        console.print(f"{sheet}: logged and replayed side by side")
    return report.identical


def _find_group(run: Path, config: RunConfig, name: str) -> LoggedGroup:
    update, _, task_id = name.partition("/")
    if not update.isdecimal():
        raise ReplayError(f"a group is named UPDATE/TASK_ID, such as 12/pocket-train-00003, not {name!r}")
    path = RunFolder(run).experience_file(int(update))
    if not path.is_file():
        if config.output.experience == "none":
            raise ReplayError(
                f"{run} logged no group of update {int(update)}, as output.experience was `none`; `scores` names the "
                "seeds, `images` and `states` give more to compare with"
            )
        there = list(RunFolder(run).experience())
        updates = f"there are {there[0]}..{there[-1]}" if there else "there is none of any update"
        raise ReplayError(f"{run} has no experience of update {int(update)}; {updates}")
    if not task_id:
        groups = read_groups(path, need="scores")
        if not groups:
            raise ReplayError(f"{path} holds no group")
        return groups[0]
    groups = read_groups(path, need="scores", task_id=task_id)
    if not groups and "#" in task_id:
        task_id, _, ordinal = task_id.rpartition("#")
        groups = read_groups(path, need="scores", task_id=task_id)
        groups = groups[int(ordinal) - 1 : int(ordinal)] if ordinal.isdecimal() and int(ordinal) > 0 else []
    if not groups:
        ids = ", ".join(read_experience(path).column("task_id").unique().to_pylist())
        raise ReplayError(f"update {int(update)} of {run} has no group {name!r}; its tasks are: {ids}")
    if len(groups) > 1:
        raise ReplayError(
            f"update {int(update)} of {run} has {len(groups)} groups of {task_id}; name one as {name}#1 .. "
            f"{name}#{len(groups)}"
        )
    if groups[0].generator != GENERATOR:
        raise ReplayError(
            f"the noise of {run} was made of its seeds by {groups[0].generator}, and this version makes it by "
            f"{GENERATOR}: no group of it comes out again. Replay it with the version that its environment.json names"
        )
    return groups[0]


def _find_task(folder: RunFolder, config: RunConfig, logged: LoggedGroup) -> EditTask:
    tasks = load_tasks(config.data.train)
    task = tasks.find(logged.task_id)
    where = config.data.train.path or config.data.train.format
    if task is None:
        raise ReplayError(f"task {logged.task_id!r} is no longer in the training data ({where}); bring the data back")
    if task.instruction != logged.instruction:
        raise ReplayError(
            f"task {logged.task_id!r} has changed in the training data ({where}): it was {logged.instruction!r} and is "
            f"{task.instruction!r}; bring the data back"
        )
    if changed := changes_of_task(folder, tasks, logged.task_id):
        raise ReplayError(
            f"task {logged.task_id!r} has changed in the training data ({where}) since the run began: its "
            f"{', '.join(changed)}; bring the data back"
        )
    return task


def _comparisons(logged: LoggedGroup, replayed: CandidateGroup, conditions: Conditions) -> Iterator[Comparison]:
    """Yield what both have, each thing after those that it is computed from."""
    was = logged.candidates
    yield compare("token mask", was.token_mask, replayed.token_mask, by_candidate=False)
    yield compare("sigmas", was.sigmas, replayed.sigmas, by_candidate=False)
    if logged.conditions is not None:
        for name, array in _arrays(logged.conditions).items():
            again = _arrays(conditions).get(name, np.empty(0))
            yield compare(f"conditions: {name}", array, again, by_candidate=False)
    for name in ("states", "acd", "images", "background_drift"):
        before, now = getattr(was, name), getattr(replayed, name)
        if name == "images" and logged.level == "scores":
            continue
        if before is not None and now is not None:
            yield compare(name.replace("_", " "), before, now, step_axis=1 if name == "states" else None)
    yield compare("acd reward", logged.scores.acd_reward, replayed.acd_reward)


def _arrays(conditions: Conditions) -> dict[str, NDArray[Any]]:
    size = np.array([conditions.height, conditions.width])
    return {"size": size, "text_valid": conditions.text_valid, **conditions.arrays}


def _surroundings(run: Path, config: RunConfig, device: torch.device) -> Iterator[Surrounding]:
    """Yield what bits depend on: device and threads of a rollout; machine, commit and versions of the run's driver.

    A run that was resumed has a record of every start. Which one a group is of is not in the log: all are named.
    """
    asked = config.editor.device
    yield Surrounding("device", asked, str(device), differs=asked not in ("auto", device.type))
    threads = str(config.rollout.threads), str(torch.get_num_threads())
    yield Surrounding("threads", *threads, differs=threads[0] != threads[1])
    record = RunFolder(run).environment
    starts = [] if record is None else [_flat(start) for start in (*record.get("earlier_starts", []), record)]
    now = _flat(provenance())
    for name in dict.fromkeys(name for start in (now, *starts) for name in start):
        before = dict.fromkeys(start.get(name, "none") for start in starts)
        today = now.get(name, "none")
        yield Surrounding(name, " or ".join(before) or "unknown", today, differs=set(before) != {today})


def _flat(record: dict[str, Any]) -> dict[str, str]:
    """Return machine, commit and each package's version by name."""
    return {name: str(record.get(name)) for name in ("machine", "commit")} | dict(record.get("versions", {}))
