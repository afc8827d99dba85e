from pathlib import Path

import pytest

from deploy.records.checkpoints import MANIFEST, Checkpoints, Manifest
from rc_grpo.messages import PolicyVersion


def manifest(update: int) -> Manifest:
    return Manifest(update, PolicyVersion(update, f"{update:064d}", 4, is_identity=False), {"learned_below": 3}, 1.5)


def written(checkpoints: Checkpoints, update: int, content: bytes = b"weights") -> Path:
    begun = checkpoints.begin(update)
    (checkpoints.folder / begun / "rank").mkdir()
    (checkpoints.folder / begun / "rank" / "state.pt").write_bytes(content)
    return checkpoints.commit(begun, manifest(update))


def test_the_latest_is_found_with_what_it_is_of(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", kept=3)
    assert checkpoints.latest() is None
    for update in (0, 2, 10):
        written(checkpoints, update)
    assert checkpoints.latest() == ("update-00010", manifest(10))


def test_what_a_crash_leaves_unfinished_is_no_checkpoint_and_in_nobodys_way(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept=3)
    written(checkpoints, 1)
    begun = checkpoints.begin(2)
    (tmp_path / begun / "half").write_bytes(b"x")
    assert checkpoints.latest() == ("update-00001", manifest(1))
    assert {path.name for path in written(checkpoints, 2).iterdir()} == {"rank", MANIFEST}


@pytest.mark.parametrize("damage", ["cut", "altered", "gone", "no manifest", "half a manifest"])
def test_a_torn_checkpoint_is_skipped_and_said_and_does_not_count_as_kept(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, kept=2)
    written(checkpoints, 1)
    torn = written(checkpoints, 2)
    file, listing = torn / "rank" / "state.pt", torn / MANIFEST
    match damage:
        case "cut":
            file.write_bytes(b"weig")
        case "altered":
            file.write_bytes(b"Weights")
        case "gone":
            file.unlink()
        case "no manifest":
            listing.unlink()
        case "half a manifest":
            listing.write_text(listing.read_text()[:40])
    assert checkpoints.latest() == ("update-00001", manifest(1))
    assert "skipping a torn checkpoint" in caplog.text
    assert checkpoints.names == ["update-00001"]


def test_the_last_so_many_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept=2)
    for update in range(5):
        written(checkpoints, update)
    assert checkpoints.names == ["update-00003", "update-00004"]


def test_a_checkpoint_that_is_made_again_replaces_the_first(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept=2)
    written(checkpoints, 1, b"one")
    assert (written(checkpoints, 1, b"other") / "rank" / "state.pt").read_bytes() == b"other"
    assert checkpoints.latest() == ("update-00001", manifest(1))
