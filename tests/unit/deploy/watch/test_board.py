import asyncio
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.watch.board import Board


@settings(deadline=None)
@given(st.lists(st.one_of(st.dictionaries(st.sampled_from("abc"), st.text(max_size=2)), st.just("look")), max_size=25))
def test_who_is_told_what_changed_since_they_looked_has_the_whole_page(steps: list[Any]) -> None:
    board, page, seen, mark = Board(), dict[str, str](), dict[str, str](), ""
    for step in [*steps, "look"]:
        if step != "look":
            board.put(step)
            page |= step
            continue
        seen |= board.since(mark)
        mark = board.mark
        assert seen == page
        assert board.since(mark) == {}


@pytest.mark.parametrize(
    "mark", ["", "-", "1", "0badcafe-1", "x" * 5000, "0badcafe-99999999999999999999999", "-²", "a-b-c"]
)
def test_a_mark_of_another_board_gets_everything(mark: str) -> None:
    board = Board()
    board.put({"head": "one"})
    board.put({"pools": "two"})
    assert board.since(mark) == {"head": "one", "pools": "two"}


def test_ten_thousand_changes_take_no_more_memory_than_one() -> None:
    board = Board()
    for number in range(10_000):
        board.put({"head": f"{number:05d}", "curves": f"{number:05d}" * 100})
    kept = sum(sys.getsizeof(text) for text in board.since("").values())
    assert kept < 1000 + 2 * sys.getsizeof("00000" * 100)
    assert board.since("") == {"head": "09999", "curves": "09999" * 100}


def test_news_come_when_there_are_some_and_nothing_comes_when_patience_ends_or_the_board_does() -> None:
    async def scenario() -> None:
        board = Board()
        waiting = asyncio.create_task(board.news(board.mark, 5))
        await asyncio.sleep(0)
        board.put({"head": "new"})
        assert await waiting == {"head": "new"}
        assert await board.news(board.mark, 0.01) == {}
        board.put({"head": "new"})
        assert await board.news(board.mark, 0.01) == {}, "the same text is no news"
        waiting = asyncio.create_task(board.news(board.mark, 60))
        await asyncio.sleep(0)
        board.close()
        assert await asyncio.wait_for(waiting, 1) == {}

    asyncio.run(scenario())


def test_viewers_are_counted() -> None:
    async def scenario() -> None:
        board = Board()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(board.somebody(), 0.01)
        with board.watched(), board.watched():
            assert board.viewers == 2
            await asyncio.wait_for(board.somebody(), 1)
        assert board.viewers == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(board.somebody(), 0.01)

    asyncio.run(scenario())
