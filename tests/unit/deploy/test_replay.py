import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from deploy.configs import load_config
from deploy.looking import replay as replaying
from deploy.looking.replay import ReplayError, replay
from deploy.looking.replay_report import ReplayReport, compare
from deploy.records.data import fingerprints, keep
from deploy.records.folder import RunFolder
from deploy.records.provenance import provenance
from rc_grpo.config import EditorConfig, RolloutConfig, RunConfig, TaskSource, dump
from rc_grpo.data import DataError, load_tasks
from rc_grpo.data.log.experience import Level, ScoredCandidates, write_experience
from rc_grpo.data.log.policies import PolicyAlteredError, PolicyNotKeptError, PolicyStore
from rc_grpo.editor import lora
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.loading import load_rollout_editor
from rc_grpo.messages import CandidateGroup, Explored, GroupScores, PolicyVersion, RolloutSeeds
from rc_grpo.pocket.world import PocketWorld
from rollout_workers.rollout import explore, image_digests, prepare, roll_out

TASK = PocketWorld("train", 12)[4]
NAME = f"12/{TASK.task_id}"
CONFIG = load_config(
    "pocket", ("rollout.group_size=4", "rollout.steps=3", "data.train.limit=12", "output.experience=states")
)
Written = tuple[ScoredCandidates, bytes]


@pytest.fixture(scope="module")
def written() -> Written:
    """A group as a worker makes it under a trained policy, and the policy's bytes."""
    editor = load_rollout_editor(CONFIG.editor, CONFIG.rollout, CONFIG.seed)
    torch.manual_seed(1)
    weights = {name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in editor.policy.weights().items()}
    data = lora.serialise(weights)
    version = PolicyVersion(11, lora.digest(weights), lora.count_modules(weights), lora.is_identity(weights))
    editor.adopt(version, np.frombuffer(data, dtype=np.uint8), worker="rollout-1")
    prepared = prepare(editor, TASK, CONFIG.rollout)
    seeds = RolloutSeeds.for_group(CONFIG.seed, 11, TASK.task_id, 4)
    rolled_out = roll_out(editor, TASK.task_id, prepared, seeds, version, CONFIG.rollout, worker="rollout-1")
    group = CandidateGroup.from_arrow(rolled_out.to_arrow())
    scores = GroupScores(TASK.task_id, "ground_truth", np.linspace(0, 1, 4), group.acd_reward)
    return ScoredCandidates(TASK, group, scores, np.zeros(4), 12, prepared.conditions), data


@pytest.fixture(scope="module", autouse=True)
def loaded_once() -> Iterator[None]:
    """The first who asks for an editor of a configuration loads it; an adopted policy is all that changes in it."""
    editors: dict[str, Editor] = {}

    def load(editor: EditorConfig, rollout: RolloutConfig, seed: int) -> Editor:
        key = f"{editor!r} {rollout!r} {seed}"
        if key not in editors:
            editors[key] = load_rollout_editor(editor, rollout, seed)
        return editors[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replaying, "load_rollout_editor", load)
        yield


Make = Callable[..., Path]


@pytest.fixture
def make(written: Written, tmp_path: Path) -> Make:
    """Writes a run's folder: its configuration, surroundings, policy, and the log of update 12."""

    def run(*entries: ScoredCandidates, level: Level = "states", config: RunConfig = CONFIG) -> Path:
        folder = tmp_path / "run"
        entry, weights = written
        folder.mkdir()
        output = config.output.model_copy(update={"experience": level})
        (folder / "config.yaml").write_text(dump(config.model_copy(update={"output": output})))
        (folder / "environment.json").write_text(json.dumps(provenance()))
        PolicyStore(folder / "policies").keep(entry.candidates.policy, weights)
        write_experience(folder / "experience" / "update-00012.parquet", entries or [entry], level)
        return folder

    return run


def printed(report: ReplayReport) -> str:
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as capture:
        report.render(console)
    return capture.get()


@pytest.mark.parametrize(
    ("level", "compared"),
    [
        ("states", {"states", "acd", "images", "background drift", "acd reward", "conditions: prompt"}),
        ("images", {"acd", "images", "background drift", "acd reward"}),
        ("scores", {"background drift", "acd reward"}),
    ],
)
def test_a_logged_group_replays_bit_for_bit(make: Make, level: Level, compared: set[str]) -> None:
    report = replay(make(level=level), NAME)
    names = {comparison.what for comparison in report.comparisons}
    assert compared <= names
    assert report.identical, report.comparisons
    assert not any(surrounding.differs for surrounding in report.surroundings)
    assert "identical" in printed(report)
    assert ("`states` would have compared" in printed(report)) == (level != "states")
    assert report.sheet().width > 4 * 128


def test_a_tampered_image_is_found_and_named(make: Make, written: Written) -> None:
    entry, _ = written
    images = entry.candidates.images.copy()
    images[2, 5, 7, 0] ^= 4
    report = replay(make(replace(entry, candidates=replace(entry.candidates, images=images))), NAME)
    (found,) = (comparison for comparison in report.comparisons if not comparison.identical)
    assert (found.what, found.candidates, found.differing, found.largest) == ("images", (2,), 1, 4.0)
    assert not report.identical
    assert "not identical: the first to differ is images" in printed(report)
    assert report.sheet().height < 2 * replay_sheet_row(report)


def replay_sheet_row(report: ReplayReport) -> int:
    whole = replace(report, logged=replace(report.logged, candidates=report.replayed)).sheet()
    return whole.height // report.replayed.size


def test_tampered_states_are_found_with_the_step_at_which_they_begin(make: Make, written: Written) -> None:
    entry, _ = written
    assert entry.candidates.states is not None
    states = entry.candidates.states.copy()
    states[1, 2:, 3] += 0.5
    states[3, 3, 3] = np.nan
    report = replay(make(replace(entry, candidates=replace(entry.candidates, states=states))), NAME)
    (found,) = (comparison for comparison in report.comparisons if not comparison.identical)
    assert (found.what, found.candidates, found.largest) == ("states", (1, 3), np.inf)
    assert found.note == "from the state after step 2 on"


def test_another_seed_is_another_group_and_differs_from_the_noise_on(make: Make, written: Written) -> None:
    entry, _ = written
    seeds = replace(entry.candidates.seeds, reference=1)
    report = replay(make(replace(entry, candidates=replace(entry.candidates, seeds=seeds))), NAME)
    states = next(comparison for comparison in report.comparisons if comparison.what == "states")
    assert states.note == "from the noise on"
    assert states.candidates == (0, 1, 2, 3)


@pytest.mark.parametrize("header", [{}, {"generator": "threefry"}])
def test_noise_of_another_generator_is_said_and_not_compared(make: Make, header: dict[str, str]) -> None:
    folder = make()
    (path,) = (folder / "experience").iterdir()
    table = pq.read_table(path)
    known = json.loads(table.schema.metadata[b"rc_grpo.experience"])
    del known["generator"]
    metadata = {**table.schema.metadata, b"rc_grpo.experience": json.dumps(known | header)}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(ReplayError, match=r"was made of its seeds by (torch's|threefry).*environment.json"):
        replay(folder, NAME)


def test_what_has_changed_in_the_surroundings_is_said(make: Make) -> None:
    folder = make()
    record = provenance() | {"machine": "1 x NVIDIA H200"}
    record["versions"] |= {"torch": "2.0.0", "vllm": "0.1"}
    (folder / "environment.json").write_text(json.dumps(record))
    report = replay(folder, NAME)
    changed = {surrounding.what: surrounding for surrounding in report.surroundings if surrounding.differs}
    assert {"machine", "torch", "vllm"} == changed.keys()
    assert (changed["torch"].then, changed["torch"].now) == ("2.0.0", provenance()["versions"]["torch"])
    assert "1 x NVIDIA H200" in printed(report)
    earlier = provenance() | {"commit": "0ld"}
    (folder / "environment.json").write_text(json.dumps(provenance() | {"earlier_starts": [earlier]}))
    (resumed,) = (surrounding for surrounding in replay(folder, NAME).surroundings if surrounding.differs)
    assert (resumed.what, resumed.then) == ("commit", f"0ld or {provenance()['commit']}")
    (folder / "environment.json").unlink()
    assert any(surrounding.then == "unknown" for surrounding in replay(folder, NAME).surroundings)


def test_of_two_groups_of_a_task_in_an_update_one_is_chosen_by_its_number(make: Make, written: Written) -> None:
    entry, _ = written
    drift = entry.candidates.background_drift + np.float32(0.25)
    second = replace(entry, candidates=replace(entry.candidates, background_drift=drift))
    folder = make(entry, second)
    with pytest.raises(ReplayError, match=rf"2 groups of {TASK.task_id}; name one as {NAME}#1 .. {NAME}#2"):
        replay(folder, NAME)
    with pytest.raises(ReplayError, match="has no group"):
        replay(folder, f"{NAME}#3")
    assert not replay(folder, f"{NAME}#2").identical


def test_an_update_alone_is_its_first_group(make: Make) -> None:
    assert replay(make(), NAME.partition("/")[0]).identical


@pytest.mark.parametrize(
    ("group", "says"),
    [
        (f"x/{TASK.task_id}", "UPDATE/TASK_ID"),
        (f"13/{TASK.task_id}", r"no experience of update 13; there are 12\.\.12"),
        ("12/other", f"no group '12/other'; its tasks are: {TASK.task_id}"),
    ],
)
def test_a_group_that_is_not_in_the_log_is_named_with_those_that_are(make: Make, group: str, says: str) -> None:
    with pytest.raises(ReplayError, match=says):
        replay(make(), group)


def test_no_run_and_a_run_that_logged_nothing_are_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="no run at"):
        replay(tmp_path / "nowhere", NAME)
    folder = make()
    shutil.rmtree(folder / "experience")
    silent = CONFIG.model_copy(update={"output": CONFIG.output.model_copy(update={"experience": "none"})})
    (folder / "config.yaml").write_text(dump(silent))
    with pytest.raises(ReplayError, match=r"output\.experience was `none`"):
        replay(folder, NAME)


def test_a_policy_that_was_not_kept_is_named(make: Make) -> None:
    folder = make()
    shutil.rmtree(folder / "policies")
    with pytest.raises(PolicyNotKeptError, match=r"policy v11:\w{8} is not kept .*output\.policies: all"):
        replay(folder, NAME)


def test_altered_policy_bytes_are_refused(make: Make) -> None:
    folder = make()
    (path,) = (folder / "policies").iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(PolicyAlteredError, match=path.name):
        replay(folder, NAME)


def test_a_policy_for_another_editor_is_refused(make: Make) -> None:
    narrow = CONFIG.editor.model_copy(update={"lora": CONFIG.editor.lora.model_copy(update={"rank": 4})})
    with pytest.raises(ReplayError, match=r"is not what .* trained"):
        replay(make(config=CONFIG.model_copy(update={"editor": narrow})), NAME)


def test_a_task_that_is_gone_or_has_changed_is_named(make: Make, written: Written, tmp_path: Path) -> None:
    entry, _ = written
    changed = replace(entry, task=replace(TASK, instruction="Add a cat"))
    folder = make(changed)
    with pytest.raises(ReplayError, match=f"has changed .*: it was 'Add a cat' and is '{TASK.instruction}'"):
        replay(folder, NAME)
    for override, says in (
        ("data.train.limit=3", f"task '{TASK.task_id}' is no longer in the training data .pocket."),
        (f"data.train={{format: jsonl, path: {tmp_path}/gone.jsonl}}", r"gone\.jsonl"),
    ):
        (folder / "config.yaml").write_text(dump(load_config(str(folder / "config.yaml"), (override,))))
        with pytest.raises((ReplayError, DataError), match=says):
            replay(folder, NAME)


def test_a_task_whose_mask_was_exchanged_is_named_with_what_changed(make: Make, tmp_path: Path) -> None:
    for name, data in (("source.png", TASK.source), ("mask.png", TASK.mask)):
        (tmp_path / name).write_bytes(data)
    row = {"task_id": TASK.task_id, "instruction": TASK.instruction, "source": "source.png", "mask": "mask.png"}
    (tmp_path / "own.jsonl").write_text(json.dumps(row))
    source = TaskSource(format="jsonl", path=tmp_path / "own.jsonl")
    folder = make(config=CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update={"train": source})}))
    keep(RunFolder(folder), fingerprints(RunFolder(folder), load_tasks(source), (), resume=False))
    assert replay(folder, NAME).identical
    (tmp_path / "mask.png").write_bytes(PocketWorld("train", 12)[7].mask)
    with pytest.raises(ReplayError, match=rf"'{TASK.task_id}' has changed .*since the run began: its mask; bring"):
        replay(folder, NAME)


def test_arrays_are_compared_by_their_bits() -> None:
    row = np.array([0.0, np.nan, 1.0])
    assert compare("x", row, row.copy()).identical
    negative = compare("x", row, np.array([-0.0, np.nan, 1.0]))
    assert (negative.candidates, negative.largest) == ((0,), 0.0)
    failed = compare("x", row, np.array([0.0, 2.0, np.nextafter(1, 2)]))
    assert (failed.candidates, failed.largest) == ((1, 2), np.inf)
    assert compare("x", row, row[:2]).note == "logged as float64 [3], now float64 [2]"
    assert compare("x", row > 0, row <= 0, by_candidate=False).candidates is None


EXPLORING = load_config(
    "pocket", ("rollout.group_size=4", "rollout.steps=3", "rollout.explore=6", "data.train.limit=12")
)


@pytest.fixture(scope="module")
def chosen(written: Written) -> ScoredCandidates:
    """The group as it is when it was chosen from a pool by these rewards."""
    entry, weights = written
    editor = load_rollout_editor(CONFIG.editor, CONFIG.rollout, CONFIG.seed)
    policy = entry.candidates.policy
    editor.adopt(policy, np.frombuffer(weights, dtype=np.uint8), worker="rollout-1")
    prepared = prepare(editor, TASK, CONFIG.rollout)
    seeds = RolloutSeeds.for_group(CONFIG.seed, 11, TASK.task_id, 6)
    pool = explore(editor, TASK.task_id, prepared, seeds, policy, EXPLORING.rollout)
    rewards = {"ground_truth": np.array([0.5, 0.4, 0.3, np.nan, 0.1, 0.9])}
    explored = Explored(policy, seeds, (0, 1, 4, 5), rewards, (3,), image_digests(pool.images))
    made = roll_out(
        editor, TASK.task_id, prepared, seeds.of(explored.chosen), policy, EXPLORING.rollout, worker="rollout-1"
    )
    group = CandidateGroup.from_arrow(made.to_arrow())
    scores = replace(entry.scores, acd_reward=group.acd_reward, explored=explored)
    return replace(entry, candidates=group, scores=scores)


def test_a_group_that_was_chosen_from_a_pool_replays_bit_for_bit_the_pool_and_the_choice_too(
    make: Make, chosen: ScoredCandidates
) -> None:
    report = replay(make(chosen, config=EXPLORING), NAME)
    names = {comparison.what for comparison in report.comparisons}
    assert {"states", "the pool's images", "the choice", "the chosen seeds"} <= names
    assert report.identical, report.comparisons


def test_a_pool_that_was_tampered_with_is_found(make: Make, chosen: ScoredCandidates) -> None:
    pool = chosen.scores.explored
    assert pool is not None
    rewards = {"ground_truth": np.array([0.5, 0.4, 0.6, np.nan, 0.1, 0.9])}
    pool = replace(pool, rewards=rewards, images=("0" * 64, *pool.images[1:]))
    report = replay(make(replace(chosen, scores=replace(chosen.scores, explored=pool)), config=EXPLORING), NAME)
    found = {comparison.what: comparison.candidates for comparison in report.comparisons if not comparison.identical}
    assert found == {"the pool's images": (0,), "the choice": (1,)}


def test_a_pool_without_its_configuration_is_not_replayed(make: Make, chosen: ScoredCandidates) -> None:
    with pytest.raises(ReplayError, match=r"has no rollout\.explore"):
        replay(make(chosen, level="scores"), NAME)
