import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rc_grpo.messages import CandidateGroup, GroupScores, PolicyVersion, RolloutSeeds

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


def test_a_foreign_record_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="not an RC-GRPO record batch"):
        CandidateGroup.from_arrow(pa.RecordBatch.from_pydict({"a": [1]}))
