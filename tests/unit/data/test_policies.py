from pathlib import Path

import numpy as np
import pytest
import torch

from rc_grpo.data.log.policies import PolicyAlteredError, PolicyNotKeptError, PolicyStore
from rc_grpo.editor import lora
from rc_grpo.messages import PolicyVersion


def policy(number: int, scale: float = 1.0) -> tuple[PolicyVersion, bytes]:
    weights = {f"block.lora_{part}.weight": torch.full((2, 3), scale + number) for part in "AB"}
    version = PolicyVersion(number, lora.digest(weights), lora.count_modules(weights), lora.is_identity(weights))
    return version, lora.serialise(weights)


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    return PolicyStore(tmp_path / "policies")


def test_a_kept_policy_comes_back_byte_for_byte_under_its_number_and_digest(store: PolicyStore) -> None:
    version, weights = policy(12)
    path = store.keep(version, np.frombuffer(weights, dtype=np.uint8))
    assert path.name == f"v00012-{version.digest[:12]}.safetensors"
    assert store.load(12, version.digest) == weights
    store.keep(*policy(100_000))
    assert [kept.number for kept in store.kept()] == [12, 100_000]


def test_a_version_that_is_made_again_replaces_its_equal_and_joins_one_that_differs(store: PolicyStore) -> None:
    (version, weights), (other, others) = policy(3), policy(3, scale=2.0)
    store.keep(version, weights)
    store.keep(version, weights)
    assert len(store.kept()) == 1
    store.keep(other, others)
    assert len(store.kept()) == 2
    assert store.load(3, version.digest) == weights
    assert store.load(3, other.digest) == others


def test_a_write_that_breaks_off_leaves_no_file(store: PolicyStore, tmp_path: Path, monkeypatch) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        store.keep(*policy(1))
    assert list((tmp_path / "policies").iterdir()) == []


def test_a_missing_version_is_named_with_those_that_are_kept(store: PolicyStore) -> None:
    wanted, _ = policy(7)
    with pytest.raises(PolicyNotKeptError, match=r"policy v7:\w{8} is not kept .* no version at all"):
        store.load(7, wanted.digest)
    for number in (0, 10):
        store.keep(*policy(number))
    with pytest.raises(PolicyNotKeptError, match=r"kept are v0:\w{8}, v10:\w{8}\. `output\.policies: all` keeps every"):
        store.load(7, wanted.digest)
    store.keep(*policy(7, scale=2.0))
    with pytest.raises(PolicyNotKeptError, match=r"kept is v7:\w{8}: the run was rolled back"):
        store.load(7, wanted.digest)


def test_of_many_kept_versions_the_newest_are_named(store: PolicyStore) -> None:
    for number in range(25):
        store.keep(*policy(number))
    with pytest.raises(PolicyNotKeptError, match=r"kept are v5:.*, v24:\w{8} and 5 earlier ones"):
        store.load(30, "0" * 64)


@pytest.mark.parametrize(
    ("kept", "said"), [(20, r"v0:.*, v19:\w{8}\. "), (21, r"v1:.*, v20:\w{8} and 1 earlier ones\. ")]
)
def test_up_to_twenty_kept_versions_are_all_named(store: PolicyStore, kept: int, said: str) -> None:
    for number in range(kept):
        store.keep(*policy(number))
    with pytest.raises(PolicyNotKeptError, match=r"policy v30:0{8} is not kept in .*; kept are " + said):
        store.load(30, "0" * 64)


def test_equal_weights_of_another_number_are_another_version(store: PolicyStore) -> None:
    version, weights = policy(3)
    store.keep(version, weights)
    for number in (2, 4):
        with pytest.raises(PolicyNotKeptError, match=rf"policy v{number}:\w{{8}} is not kept"):
            store.load(number, version.digest)


def test_versions_are_listed_by_number_with_their_digest_and_file(store: PolicyStore, tmp_path: Path) -> None:
    assert store.kept() == ()
    versions = [policy(number)[0] for number in (100_000, 7, 99_999)]
    files = [store.keep(version, policy(version.number)[1]) for version in versions]
    assert [(kept.number, kept.digest, kept.path) for kept in store.kept()] == [
        (versions[i].number, versions[i].digest[:12], files[i]) for i in (1, 2, 0)
    ]
    assert str(store.kept()[0]) == f"v7:{versions[1].digest[:8]}"
    assert [path.name for path in files] == [f"v{v.number:05d}-{v.digest[:12]}.safetensors" for v in versions]


def test_what_was_altered_is_told_by_the_digest_found_and_the_one_expected(store: PolicyStore) -> None:
    (version, _), (other, others) = policy(4), policy(4, scale=2.0)
    store.keep(version, others)
    with pytest.raises(
        PolicyAlteredError, match=f"weights have digest {other.digest[:12]}, not {version.digest[:12]}"
    ) as caught:
        store.load(4, version.digest)
    assert isinstance(caught.value, ValueError)
    assert issubclass(PolicyNotKeptError, ValueError)


def test_altered_and_damaged_weights_are_refused(store: PolicyStore) -> None:
    version, weights = policy(4)
    path = store.keep(version, weights)
    path.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(PolicyAlteredError, match="was altered"):
        store.load(4, version.digest)
    path.write_bytes(weights[:-7])
    with pytest.raises(PolicyAlteredError, match="is damaged"):
        store.load(4, version.digest)


def test_a_digest_that_only_begins_like_the_files_is_refused(store: PolicyStore) -> None:
    version, weights = policy(4)
    store.keep(version, weights)
    with pytest.raises(PolicyAlteredError):
        store.load(4, version.digest[:12] + "0" * 52)


def test_other_files_in_the_folder_are_left_alone(store: PolicyStore, tmp_path: Path) -> None:
    store.keep(*policy(1))
    (tmp_path / "policies" / "v1-mine.safetensors").write_bytes(b"")
    (tmp_path / "policies" / ".v00002-abc.safetensors.0").write_bytes(b"")
    for name in (
        "v00003-0123456789ab.safetensors.old.safetensors",
        "vv00003-0123456789ab.safetensors",
        "v0003-0123456789ab",
    ):
        (tmp_path / "policies" / name).write_bytes(b"")
    PolicyStore(tmp_path / "policies" / "older").keep(*policy(2))
    assert [kept.number for kept in store.kept()] == [1]
