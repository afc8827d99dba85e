import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rc_grpo.data import read_experience, write_experience
from rc_grpo.data.log.conditions import unpack_conditions
from rc_grpo.data.log.experience import ScoredCandidates
from rc_grpo.images import decode_rgb
from rc_grpo.messages import CandidateGroup, Conditions, EditTask, GroupScores, PolicyVersion, RolloutSeeds

from .conftest import MASK, SOURCE

G, T, N, C, LAYERS, L = 4, 3, 6, 2, 5, 7


def some_conditions(rng):
    shapes = {"prompt": (L, 3), "pooled": (5,), "reference": (N, C)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Conditions(48, 64, arrays, np.arange(L) < 4)


def scored(task_id="t0", size=G, rewards=None, subscores=None, tokens=N, acd=True, states=True):
    rng = np.random.default_rng(len(task_id) + size)
    task = EditTask(task_id, "add", SOURCE, f"do {task_id}", MASK)
    group = CandidateGroup(
        task_id=task_id,
        seeds=RolloutSeeds(2**63 - 1, tuple(range(1, size))),
        policy=PolicyVersion(3, "ab" * 32, 266, False),
        sigmas=np.linspace(1, 0, T + 1),
        token_mask=np.arange(tokens) < 2,
        images=rng.integers(0, 256, (size, 8, 8, 3), dtype=np.uint8),
        background_drift=rng.random(size, dtype=np.float32),
        states=rng.normal(size=(size, T + 1, tokens, C)).astype(np.float32) if states else None,
        acd=rng.random((size, LAYERS, T), dtype=np.float32) if acd else None,
        worker="rollout-0",
    )
    rewards = rng.random(size) if rewards is None else np.asarray(rewards)
    scores = GroupScores(task_id, "ground_truth", rewards, group.acd_reward, subscores or {}, ("why",) * size)
    conditions = some_conditions(rng) if states else None
    return ScoredCandidates(task, group, scores, rng.normal(size=size), 7, conditions)


def test_there_is_one_row_a_candidate_and_it_says_whose_it_is(tmp_path):
    groups = [scored("a"), scored("bb", size=3)]
    write_experience(tmp_path / "new" / "7.parquet", groups, "scores")
    table = read_experience(tmp_path / "new" / "7.parquet")
    assert table.num_rows == G + 3
    rows = table.to_pylist()
    assert [row["candidate"] for row in rows] == [0, 1, 2, 3, 0, 1, 2]
    assert [row["is_reference"] for row in rows] == [True, False, False, False, True, False, False]
    assert [row["seed"] for row in rows[:G]] == [2**63 - 1, 1, 2, 3]
    second, last = groups[1], rows[-1]
    assert last["task_reward"] == second.scores.task_reward[2]
    assert last["acd_reward"] == second.scores.acd_reward[2]
    assert last["advantage"] == second.advantages[2]
    assert last["background_drift"] == second.candidates.background_drift[2]
    assert last["sigmas"] == second.candidates.sigmas.tolist()
    expected = {"update": 7, "task_id": "bb", "kind": "add", "instruction": second.task.instruction, "reason": "why"}
    expected |= {"policy_number": 3, "policy_digest": "ab" * 32, "worker": "rollout-0", "judge": "ground_truth"}
    expected |= {"policy_modules": 266, "policy_is_identity": False}
    assert expected.items() <= last.items()
    assert not {"image", "acd", "states", "conditions"} & set(table.column_names)


def test_what_is_the_groups_stands_once_in_the_row_of_its_reference(tmp_path):
    entries = [scored("a"), scored("bb", size=3, tokens=9)]
    write_experience(tmp_path / "x.parquet", entries, "states")
    rows = read_experience(tmp_path / "x.parquet").to_pylist()
    for entry, row in zip(entries, [rows[0], rows[G]], strict=True):
        assert row["token_mask"] == entry.candidates.token_mask.tolist()
        assert unpack_conditions(row["conditions"]).height == 48
    assert all(row["token_mask"] is row["conditions"] is None for row in rows if row["candidate"])


def test_a_failed_score_stays_nan_and_never_becomes_a_number(tmp_path):
    failed = {"editing": np.array([1.0, math.nan, 2.0, 3.0])}
    write_experience(tmp_path / "x.parquet", [scored(rewards=[0.5, math.nan, 0.0, 1.0], subscores=failed)], "scores")
    table = read_experience(tmp_path / "x.parquet")
    for column, values in (("task_reward", [0.5, math.nan, 0.0, 1.0]), ("judge.editing", failed["editing"])):
        np.testing.assert_array_equal(table[column].to_numpy(), values)
        assert table[column].null_count == 0


def test_an_acd_reward_that_was_not_recorded_is_nan(tmp_path):
    write_experience(tmp_path / "x.parquet", [scored(acd=False)], "images")
    table = read_experience(tmp_path / "x.parquet")
    assert np.isnan(table["acd_reward"].to_numpy()).all()
    assert table["acd"].null_count == G


def test_a_subscore_that_a_judge_lacks_is_null(tmp_path):
    ones = {"editing": np.ones(G)}
    write_experience(tmp_path / "x.parquet", [scored("a", subscores=ones), scored("b")], "scores")
    assert read_experience(tmp_path / "x.parquet")["judge.editing"].to_pylist() == [1.0] * G + [None] * G


def test_images_and_recordings_come_back_exactly(tmp_path):
    entry = scored()
    group = entry.candidates
    write_experience(tmp_path / "x.parquet", [entry], "images")
    table = read_experience(tmp_path / "x.parquet")
    images = [decode_rgb(cell["bytes"]) for cell in table["image"].to_pylist()]
    np.testing.assert_array_equal(images, group.images)
    np.testing.assert_array_equal(table["acd"].to_pylist(), group.acd)
    assert "states" not in table.column_names


def test_the_image_column_is_declared_as_hugging_faces_image_feature(tmp_path):
    write_experience(tmp_path / "x.parquet", [scored()], "states")
    schema = pq.read_schema(tmp_path / "x.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    assert features["image"] == {"_type": "Image"}
    assert schema.field("image").type == pa.struct({"bytes": pa.binary(), "path": pa.string()})


def test_trajectories_come_back_exactly_also_where_groups_differ_in_tokens(tmp_path):
    entries = [scored("a"), scored("b", tokens=9)]
    write_experience(tmp_path / "x.parquet", entries, "states")
    rows = read_experience(tmp_path / "x.parquet").to_pylist()
    for row, states in zip(rows, [s for entry in entries for s in entry.candidates.states], strict=True):
        np.testing.assert_array_equal(np.float32(row["states"]).reshape(row["states_shape"]), states)


def test_what_is_wanted_and_missing_is_an_error_that_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="came without states"):
        write_experience(tmp_path / "x.parquet", [scored(states=False)], "states")
    with pytest.raises(ValueError, match="came without conditions"):
        write_experience(tmp_path / "x.parquet", [replace(scored(), conditions=None)], "states")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_breaks_off_leaves_the_former_file(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    write_experience(path, [scored("before")], "scores")

    def full_disk(writer, table):
        raise OSError("no space left")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_experience(path, [scored("after")], "scores")
    assert list(tmp_path.iterdir()) == [path]
    assert read_experience(path)["task_id"][0].as_py() == "before"


def test_an_update_without_groups_is_a_file_without_rows(tmp_path):
    write_experience(tmp_path / "x.parquet", [], "images")
    assert read_experience(tmp_path / "x.parquet").num_rows == 0


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    entry = scored("a")
    with pytest.raises(ValueError, match="do not belong together"):
        write_experience(tmp_path / "x.parquet", [replace(entry, scores=scored("b").scores)], "scores")
    with pytest.raises(ValueError, match="3 advantages"):
        write_experience(tmp_path / "x.parquet", [replace(entry, advantages=entry.advantages[:3])], "scores")


def test_another_parquet_file_is_not_experience(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="holds no experience"):
        read_experience(tmp_path / "x.parquet")


def test_the_file_is_compressed_with_zstd(tmp_path):
    write_experience(tmp_path / "x.parquet", [scored()], "images")
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    columns = [metadata.row_group(0).column(i).compression for i in range(metadata.num_columns)]
    assert set(columns) == {"ZSTD"}
