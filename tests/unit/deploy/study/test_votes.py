import asyncio
from pathlib import Path

import pytest

from deploy.study.votes import BallotBox, Vote, Votes
from rc_grpo.evaluation.journal import Journal

SHOWN = ("a", "b")


def vote(choice: str | None, participant: str = "ada", task_id: str = "add/1.png") -> Vote:
    return Vote(participant, task_id, choice, SHOWN, "2026-01-02T03:04:05.678+00:00")


def cast(path: Path, *votes: Vote) -> None:
    with BallotBox.opened(path) as (box, _):
        for each in votes:
            asyncio.run(box.cast(each))


def test_a_vote_for_the_same_trial_replaces_the_former(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    cast(path, vote("a"), vote("b", task_id="add/2.png"), vote(None))
    cast(path, vote("b"))
    votes = Votes.read(path)
    assert votes.counted == {("ada", "add/1.png"): vote("b"), ("ada", "add/2.png"): vote("b", task_id="add/2.png")}
    assert len(path.read_text().splitlines()) == 4


def test_a_double_click_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"

    async def twice() -> None:
        with BallotBox.opened(path) as (box, _):
            await asyncio.gather(*(box.cast(vote("a")) for _ in range(5)))

    asyncio.run(twice())
    assert len(path.read_text().splitlines()) == 1


def test_a_vote_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "votes.jsonl", list[tuple[bytes, bool]]()
    with BallotBox.opened(path) as (box, _):
        monkeypatch.setattr("os.fsync", lambda _: synced.append((path.read_bytes(), bool(box.of("ada")))))
        asyncio.run(box.cast(vote("a")))
    [(written, counted)] = synced
    assert b'"choice": "a"' in written
    assert written.endswith(b"\n")
    assert not counted


def test_a_torn_last_line_is_skipped_with_a_word_and_cut_off_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    cast(path, vote("a"), vote("b", task_id="add/2.png"))
    path.write_bytes(path.read_bytes()[:-20])
    votes = Votes.read(path)
    assert list(votes.counted) == [("ada", "add/1.png")]
    assert votes.word is not None
    assert "unfinished" in votes.word
    cast(path, vote("a", task_id="add/3.png"))
    whole = Votes.read(path)
    assert [task for _, task in whole.counted] == ["add/1.png", "add/3.png"]
    assert whole.word is None


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[1]",
        b'{"participant": "ada"}',
        b'{"participant": "ada", "task_id": "t", "choice": "c", "shown": ["a", "b"], "at": ""}',
        b'{"participant": 1, "task_id": "t", "choice": "a", "shown": ["a", "b"], "at": ""}',
        b'{"participant": "ada", "task_id": "t", "choice": "a", "shown": 3, "at": ""}',
    ],
)
def test_a_finished_line_that_is_no_vote_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "votes.jsonl"
    cast(path, vote("a"))
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match=r"votes\.jsonl, line 2: .*mend or remove the line"):
        Votes.read(path)


def test_a_vote_that_cannot_be_written_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with BallotBox.opened(tmp_path / "votes.jsonl") as (box, _):
        asyncio.run(box.cast(vote("a")))
        monkeypatch.setattr(Journal, "append", full)
        with pytest.raises(OSError, match="No space"):
            asyncio.run(box.cast(vote("b")))
        assert box.of("ada")["add/1.png"].choice == "a"
