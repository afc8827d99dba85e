from dataclasses import FrozenInstanceError, fields, is_dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rc_grpo import messages
from rc_grpo.messages import CandidateGroup, GroupScores, PolicyVersion, RolloutSeeds, VersionMismatchError

VERSION = PolicyVersion(3, "ab" * 32, 22, is_identity=False)


def make_group(**changes: object) -> CandidateGroup:
    rng = np.random.default_rng(0)
    values = {
        "task_id": "täsk-1",
        "seeds": RolloutSeeds(1, (2, 2**62)),
        "policy": VERSION,
        "sigmas": np.array([1.0, 0.6, 0.0]),
        "token_mask": np.array([True, False, True, True]),
        "images": rng.integers(0, 255, (3, 8, 6, 3), dtype=np.uint8),
        "background_drift": np.array([0.1, 0.2, 0.3], dtype=np.float32),
        "states": rng.normal(size=(3, 3, 4, 5)).astype(np.float32),
        "acd": rng.normal(size=(3, 2, 2)).astype(np.float32),
        "worker": "rollout-0",
        "seconds": {"integrate": 0.5},
    }
    return CandidateGroup(**(values | changes))  # type: ignore[arg-type]


def assert_equal(left: CandidateGroup, right: CandidateGroup) -> None:
    for name, value in vars(left).items():
        other = getattr(right, name)
        if isinstance(value, np.ndarray):
            assert value.dtype == other.dtype
            np.testing.assert_array_equal(value, other)
        else:
            assert value == other, name


@pytest.mark.parametrize("changes", [{}, {"states": None}, {"acd": None}, {"states": None, "acd": None}])
def test_a_group_survives_arrow_bit_for_bit(changes: dict[str, None]) -> None:
    group = make_group(**changes)
    assert_equal(group, CandidateGroup.from_arrow(group.to_arrow()))


def test_a_group_survives_parquet(tmp_path: object) -> None:
    group = make_group()
    path = f"{tmp_path}/group.parquet"
    pq.write_table(pa.Table.from_batches([group.to_arrow()]), path)
    (batch,) = pq.read_table(path).combine_chunks().to_batches()
    assert_equal(group, CandidateGroup.from_arrow(batch))


def test_arrow_has_a_row_a_candidate_and_shares_the_states_memory() -> None:
    group = make_group()
    batch = group.to_arrow()
    assert batch.num_rows == group.size
    assert group.states is not None
    address = batch.column("states").flatten().buffers()[1].address
    assert address == group.states.__array_interface__["data"][0]


def test_reading_a_group_copies_nothing() -> None:
    batch = make_group().to_arrow()
    states = CandidateGroup.from_arrow(batch).states
    assert states is not None
    assert states.__array_interface__["data"][0] == batch.column("states").flatten().buffers()[1].address


def test_the_attention_reward_is_the_mean_recording_and_nan_when_there_is_none() -> None:
    group = make_group()
    assert group.acd is not None
    np.testing.assert_allclose(group.acd_reward, group.acd.reshape(3, -1).mean(1), rtol=1e-6)
    assert np.isnan(make_group(acd=None).acd_reward).all()


def test_a_failed_score_survives_as_nan_with_its_reason() -> None:
    scores = GroupScores(
        "t",
        "judge",
        np.array([0.5, np.nan]),
        np.array([1.0, 1.1]),
        {"success": np.array([3.0, np.nan])},
        (None, "timeout"),
    )
    again = GroupScores.from_arrow(scores.to_arrow())
    np.testing.assert_array_equal(again.task_reward, scores.task_reward)
    np.testing.assert_array_equal(again.subscores["success"], scores.subscores["success"])
    assert again.reasons == (None, "timeout")
    assert again.failed == 1


def test_the_attention_reward_is_averaged_in_double_precision() -> None:
    acd = np.array([[[2.0**24, 1.0]], [[1.0, 2.0]]], dtype=np.float32)
    reward = make_group(acd=acd).acd_reward
    assert reward.dtype == np.float64
    assert reward.tolist() == [2.0**23 + 0.5, 1.5]
    acd[1, 0, 1] = np.nan
    np.testing.assert_array_equal(make_group(acd=acd).acd_reward, [2.0**23 + 0.5, np.nan])
    for size in (1, 2):
        unrecorded = make_group(images=np.zeros((size, 8, 6, 3), np.uint8), acd=None)
        assert unrecorded.size == size
        assert unrecorded.acd_reward.shape == (size,)


def test_a_group_travels_as_a_numbered_row_a_candidate_with_columns_by_name() -> None:
    batch = make_group().to_arrow()
    assert batch.schema.names == ["candidate", "image", "background_drift", "states", "acd"]
    assert batch.column("candidate").to_pylist() == [0, 1, 2]
    assert batch.column("candidate").type == pa.int32()


def test_arrays_that_are_no_one_piece_of_memory_survive_and_come_back_read_only() -> None:
    images = np.random.default_rng(1).integers(0, 255, (3, 6, 8, 3), dtype=np.uint8).swapaxes(1, 2)
    states = np.random.default_rng(2).normal(size=(3, 6, 4, 5)).astype(np.float32)[:, ::2]
    group = make_group(images=images, states=states)
    again = CandidateGroup.from_arrow(group.to_arrow())
    assert_equal(group, again)
    assert not again.images.flags.writeable


SCORES = GroupScores(
    task_id="täsk-1",
    judge="a+b",
    task_reward=np.array([0.5, np.nan]),
    acd_reward=np.array([1.0, 1.1]),
    subscores={"a.success": np.array([3.0, np.nan]), "b.artifacts": np.array([4.0, 5.0])},
    reasons=(None, "timeout"),
    attempts=3,
    latency=1.25,
    rewards={"a": np.array([0.25, np.nan]), "b": np.array([0.75, 0.5])},
)


@pytest.mark.parametrize("name", ["task_id", "judge", "reasons", "attempts", "latency"])
def test_what_is_said_of_a_group_survives_arrow(name: str) -> None:
    assert getattr(GroupScores.from_arrow(SCORES.to_arrow()), name) == getattr(SCORES, name)


@pytest.mark.parametrize("name", ["task_reward", "acd_reward"])
def test_rewards_survive_arrow_each_in_its_place(name: str) -> None:
    np.testing.assert_array_equal(getattr(GroupScores.from_arrow(SCORES.to_arrow()), name), getattr(SCORES, name))


@pytest.mark.parametrize("name", ["rewards", "subscores"])
def test_what_each_judge_said_survives_arrow_under_its_name(name: str) -> None:
    again, expected = getattr(GroupScores.from_arrow(SCORES.to_arrow()), name), getattr(SCORES, name)
    assert list(again) == list(expected)
    for key in expected:
        np.testing.assert_array_equal(again[key], expected[key])


def test_scores_name_their_columns_after_the_judge() -> None:
    assert list(SCORES.columns) == ["reward.a", "reward.b", "judge.a.success", "judge.b.artifacts"]
    assert SCORES.failed == 1


def test_a_single_judges_reward_is_the_task_reward_and_without_reasons_there_are_none() -> None:
    alone = GroupScores("t", "vlm", np.array([0.5, 0.25]), np.array([1.0, np.nan]))
    assert list(alone.rewards) == ["vlm"]
    np.testing.assert_array_equal(alone.rewards["vlm"], [0.5, 0.25])
    assert alone.failed == 0
    again = GroupScores.from_arrow(alone.to_arrow())
    assert again.reasons == (None, None)
    assert (again.attempts, again.latency, dict(again.subscores)) == (1, 0.0, {})


def test_a_version_is_called_by_its_number_and_eight_digits() -> None:
    assert str(VERSION) == "v3:abababab"


def test_weights_that_did_not_arrive_are_no_bad_value_that_a_reader_of_data_would_catch() -> None:
    assert VersionMismatchError.__mro__[1] is RuntimeError


MESSAGES = [kind for kind in vars(messages).values() if is_dataclass(kind)]


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_messages_fields_cannot_be_set(kind: type) -> None:
    message = object.__new__(kind)
    for field in fields(kind):
        with pytest.raises(FrozenInstanceError):
            setattr(message, field.name, None)


def test_messages_with_arrays_are_compared_by_identity() -> None:
    group, twin = make_group(), make_group()
    assert {group, twin, group} == {twin, group}
    assert group != twin
    assert GroupScores.from_arrow(SCORES.to_arrow()) != SCORES


@pytest.mark.parametrize("metadata", [None, {b"pandas": b"{}"}])
def test_a_foreign_record_batch_is_refused(metadata: dict[bytes, bytes] | None) -> None:
    foreign = pa.RecordBatch.from_pydict({"a": [1]}).replace_schema_metadata(metadata)
    with pytest.raises(ValueError, match=r"not an RC-GRPO record batch: no 'rc_grpo\.group' .*columns \['a'\]"):
        CandidateGroup.from_arrow(foreign)


def test_scores_are_not_read_as_a_group_nor_a_group_as_scores() -> None:
    with pytest.raises(ValueError, match=r"no 'rc_grpo\.group'"):
        CandidateGroup.from_arrow(SCORES.to_arrow())
    with pytest.raises(ValueError, match=r"no 'rc_grpo\.scores'"):
        GroupScores.from_arrow(make_group().to_arrow())
