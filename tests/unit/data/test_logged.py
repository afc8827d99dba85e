import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rc_grpo.data.log.conditions import pack_conditions, unpack_conditions
from rc_grpo.data.log.experience import ScoredCandidates, write_experience
from rc_grpo.data.log.logged import read_groups
from rc_grpo.messages import (
    CandidateGroup,
    Conditions,
    EditTask,
    Explored,
    GroupScores,
    PolicyVersion,
    RolloutSeeds,
)

from .conftest import MASK, SOURCE
from .test_experience import G, scored

CANDIDATES = (
    "task_id",
    "seeds",
    "policy",
    "sigmas",
    "token_mask",
    "images",
    "background_drift",
    "states",
    "acd",
    "worker",
)


def bits(value):
    """What must be equal for two values to be the same, NaN and the sign of 0 included."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: bits(part) for name, part in value.items()}
    if isinstance(value, Conditions):
        return bits(dict(value.arrays)), bits(value.text_valid), value.height, value.width
    return value


def assert_same(read, entry, *, without=()):
    assert (read.update, read.task_id, read.kind) == (entry.update, entry.task.task_id, entry.task.kind)
    assert read.instruction == entry.task.instruction
    for name in set(CANDIDATES) - set(without):
        assert bits(getattr(read.candidates, name)) == bits(getattr(entry.candidates, name)), name
    for name in ("task_id", "judge", "task_reward", "acd_reward", "rewards", "subscores", "reasons"):
        assert bits(getattr(read.scores, name)) == bits(getattr(entry.scores, name)), name
    assert bits(read.advantages) == bits(entry.advantages)
    if "conditions" not in without:
        assert bits(read.conditions) == bits(entry.conditions)


def floats(dtype, *shape):
    special = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0])
    width = 32 if dtype == np.float32 else 64
    return hnp.arrays(dtype, shape, elements=special | st.floats(width=width))


@st.composite
def groups(draw, task_id):
    size, steps, tokens, channels, side = (draw(st.integers(1, most)) for most in (4, 3, 5, 3, 4))
    texts = st.none() | st.text(max_size=5)
    judged = {name: draw(floats(np.float64, size)) for name in draw(st.sets(st.sampled_from("abc"), min_size=1))}
    candidates = CandidateGroup(
        task_id=task_id,
        seeds=RolloutSeeds(*draw(st.tuples(*[st.integers(0, 2**63 - 1)])), tuple(range(size - 1))),
        policy=PolicyVersion(draw(st.integers(0, 10**6)), draw(st.text("0123456789abcdef")), 22, draw(st.booleans())),
        sigmas=draw(floats(np.float64, steps + 1)),
        token_mask=draw(hnp.arrays(np.bool_, tokens)),
        images=draw(hnp.arrays(np.uint8, (size, side, side + 1, 3))),
        background_drift=draw(floats(np.float32, size)),
        states=draw(floats(np.float32, size, steps + 1, tokens, channels)),
        acd=draw(st.none() | floats(np.float32, size, 2, steps)),
        worker=draw(st.text(max_size=3)),
    )
    return ScoredCandidates(
        task=EditTask(task_id, draw(st.sampled_from(["add", "other"])), SOURCE, draw(st.text()), MASK),
        candidates=candidates,
        scores=GroupScores(
            task_id=task_id,
            judge="+".join(judged),
            task_reward=draw(floats(np.float64, size)),
            acd_reward=draw(floats(np.float64, size)),
            rewards=judged,
            subscores={f"{name}.part": values[::-1].copy() for name, values in judged.items()},
            reasons=tuple(draw(texts) for _ in range(size)),
        ),
        advantages=draw(floats(np.float64, size)),
        update=draw(st.integers(0, 10**6)),
        conditions=Conditions(
            draw(st.integers(1, 4096)),
            draw(st.integers(1, 4096)),
            {"prompt": draw(floats(np.float32, 3, 2)), "pooled": draw(floats(np.float32, 2))},
            draw(hnp.arrays(np.bool_, 3)),
        ),
    )


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.tuples(groups("a"), groups("b/c")))
def test_groups_of_level_states_come_back_bit_for_bit(tmp_path, entries):
    write_experience(tmp_path / "x.parquet", entries, "states")
    read = read_groups(tmp_path / "x.parquet", need="states")
    assert len(read) == len(entries)
    for group, entry in zip(read, entries, strict=True):
        assert_same(group, entry)


def test_level_images_gives_all_but_states_and_conditions(tmp_path):
    write_experience(tmp_path / "x.parquet", [scored("a"), scored("bb", size=3, acd=False)], "images")
    first, second = read_groups(tmp_path / "x.parquet")
    for group, entry in ((first, scored("a")), (second, scored("bb", size=3, acd=False))):
        assert_same(group, entry, without=("states", "conditions"))
        assert group.candidates.states is None
        assert group.conditions is None
    assert second.candidates.acd is None


def test_level_scores_gives_seeds_policy_and_scores_and_says_so_when_images_are_needed(tmp_path):
    entry = scored()
    write_experience(tmp_path / "x.parquet", [entry], "scores")
    (group,) = read_groups(tmp_path / "x.parquet", need="scores")
    assert_same(group, entry, without=("images", "states", "acd", "conditions"))
    assert group.candidates.size == G
    with pytest.raises(ValueError, match=r"level `scores` and `images` is needed.*output\.experience: images"):
        read_groups(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"output\.experience: states"):
        read_groups(tmp_path / "x.parquet", need="states")


@pytest.mark.parametrize(
    ("logged", "needed", "enough"),
    [("scores", "images", False), ("images", "states", False), ("images", "scores", True), ("states", "scores", True)],
)
def test_more_than_is_needed_is_enough_and_less_is_named(tmp_path, logged: str, needed: str, enough: bool) -> None:
    path = tmp_path / "x.parquet"
    write_experience(path, [scored()], logged)
    if enough:
        assert read_groups(path, need=needed)[0].level == logged
    else:
        with pytest.raises(
            ValueError, match=f"{path} was logged at level `{logged}` and `{needed}` is needed here; set "
        ):
            read_groups(path, need=needed)


def test_images_that_were_not_logged_are_empty_ones_a_candidate(tmp_path) -> None:
    write_experience(tmp_path / "x.parquet", [scored()], "scores")
    (group,) = read_groups(tmp_path / "x.parquet", need="scores")
    assert group.candidates.images.shape == (G, 0, 0, 3)
    assert group.candidates.images.dtype == np.uint8
    assert group.candidates.states is group.candidates.acd is group.conditions is None


def test_a_judge_that_did_not_see_a_group_is_not_in_its_scores(tmp_path):
    ones = {"editing": np.ones(G)}
    entries = [scored("a", subscores=ones), scored("b")]
    write_experience(tmp_path / "x.parquet", entries, "scores")
    first, second = read_groups(tmp_path / "x.parquet", need="scores")
    assert set(first.scores.subscores) == {"editing"}
    assert set(second.scores.subscores) == set()


def test_one_tasks_groups_can_be_read_alone_also_where_an_update_holds_two(tmp_path):
    again = replace(scored("a"), advantages=np.zeros(G))
    write_experience(tmp_path / "x.parquet", [scored("a"), scored("bb"), again], "states")
    first, second = read_groups(tmp_path / "x.parquet", task_id="a")
    assert_same(first, scored("a"))
    assert_same(second, again)
    assert read_groups(tmp_path / "x.parquet", task_id="c") == []
    assert pq.ParquetFile(tmp_path / "x.parquet").metadata.num_row_groups == 3


def test_conditions_are_plain_safetensors_and_come_back_from_strided_arrays(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    packed = pack_conditions(Conditions(16, 32, {"prompt": array.T}, np.array([True, False])))
    read = unpack_conditions(packed)
    np.testing.assert_array_equal(read.arrays["prompt"], array.T)
    assert (read.height, read.width, read.text_valid.tolist()) == (16, 32, [True, False])


def test_conditions_keep_the_dtypes_of_their_arrays_and_the_sizes_of_sources_that_have_their_own(tmp_path):
    arrays = {"ids": np.arange(6, dtype=np.int64).reshape(2, 3), "half": np.ones(2, dtype=np.float16)}
    own = Conditions(64, 64, arrays, np.array([False, True]), sources=((32, 48), (16, 16)))
    read = unpack_conditions(pack_conditions(own))
    assert read.sources == ((32, 48), (16, 16))
    assert {name: array.dtype for name, array in read.arrays.items()} == {"ids": np.int64, "half": np.float16}
    np.testing.assert_array_equal(read.arrays["ids"], arrays["ids"])
    assert unpack_conditions(pack_conditions(Conditions(64, 64, arrays, np.array([True])))).sources == ()


def test_experience_of_an_earlier_format_is_named(tmp_path):
    write_experience(tmp_path / "x.parquet", [scored()], "states")
    table = pq.read_table(tmp_path / "x.parquet")
    metadata = table.schema.metadata | {b"rc_grpo.experience": b'{"version": 1, "level": "states"}'}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "old.parquet")
    with pytest.raises(ValueError, match="format 1"):
        read_groups(tmp_path / "old.parquet")


POOL = Explored(
    PolicyVersion(2, "cd" * 32, 266, True),
    RolloutSeeds(5, tuple(range(10, 10 + G))),
    (0, 1, *range(3, G + 1)),
    {"j": np.array([math.nan, *np.linspace(0, 1, G)]), "onlooker": np.zeros(G + 1)},
    (2,),
    tuple(f"{index:064x}" for index in range(G + 1)),
)


@pytest.mark.parametrize("level", ["scores", "states"])
def test_pools_and_pruned_candidates_come_back_beside_groups_without(tmp_path, level):
    entry = scored()
    chosen = replace(entry, scores=replace(entry.scores, explored=POOL, pruned=(1, 3)))
    path = tmp_path / "update-00001.parquet"
    write_experience(path, [entry, chosen], level)
    plain, found = (group.scores for group in read_groups(path, need="scores"))
    assert (plain.explored, plain.pruned, found.pruned) == (None, (), (1, 3))
    assert bits(dict(found.explored.rewards)) == bits(dict(POOL.rewards))
    assert replace(found.explored, rewards={}).__dict__ == replace(POOL, rewards={}).__dict__


@pytest.mark.parametrize(
    "change",
    [{"chosen": (0, 1, 2, G + 1)}, {"chosen": (0, 1)}, {"images": ("zz",) * (G + 1)}, {"rewards": {"j": np.zeros(2)}}],
)
def test_a_pool_that_does_not_fit_is_a_damaged_log(tmp_path, change):
    entry = scored()
    broken = replace(entry, scores=replace(entry.scores, explored=replace(POOL, **change)))
    write_experience(tmp_path / "broken.parquet", [broken], "scores")
    with pytest.raises(ValueError, match="is damaged"):
        read_groups(tmp_path / "broken.parquet", need="scores")


def test_a_log_without_pools_and_pruning_has_no_columns_of_them(tmp_path):
    write_experience(tmp_path / "plain.parquet", [scored()], "scores")
    assert not {"explored", "pruned"} & set(pq.read_schema(tmp_path / "plain.parquet").names)
