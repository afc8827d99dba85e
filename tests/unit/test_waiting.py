import asyncio

import pytest

from rc_grpo.waiting import DeadlineExceededError, Waits, in_words, or_undo


def test_a_wait_can_be_asked_about_while_it_goes_on_and_not_after() -> None:
    async def scenario() -> None:
        waits = Waits()
        going_on = asyncio.create_task(waits.within(5, asyncio.sleep(0.1), "the learner", "learner-0 to start"))
        await asyncio.sleep(0.02)
        with waits.on("the run", "a free worker"):
            first, second = waits.now
            assert (first.who, first.what, first.deadline_s) == ("the learner", "learner-0 to start", 5)
            assert second.deadline_s is None
            said = in_words([wait.as_dict() for wait in waits.now], limit=1)
        assert said == ["the learner waits for learner-0 to start (0.0 of 5 s)", "and 1 more"]
        await going_on
        assert waits.now == ()

    asyncio.run(scenario())


def test_a_deadline_says_who_waited_for_what_and_how_long() -> None:
    async def scenario() -> None:
        waits = Waits()
        with pytest.raises(DeadlineExceededError, match=r"the run waited 0\.01 s for the recorder"):
            await waits.within(0.01, asyncio.sleep(60), "the run", "the recorder")
        assert waits.now == ()

    asyncio.run(scenario())


@pytest.mark.parametrize("ending", [ValueError("no"), asyncio.CancelledError()])
def test_what_was_begun_is_undone_when_no_answer_comes(ending: BaseException) -> None:
    undone: list[str] = []

    async def answer() -> str:
        raise ending

    with pytest.raises(type(ending)):
        asyncio.run(or_undo(answer(), lambda: undone.append("undone")))
    assert undone == ["undone"]


def test_what_was_answered_is_left_alone() -> None:
    undone: list[str] = []

    async def answer() -> str:
        return "here"

    assert asyncio.run(or_undo(answer(), lambda: undone.append("undone"))) == "here"
    assert not undone


def test_a_timeout_of_what_is_waited_for_is_not_told_as_ours() -> None:
    async def inner() -> None:
        raise DeadlineExceededError("the server did not answer within 3 s")

    for seconds in (0.01, 600.0):
        with pytest.raises(DeadlineExceededError, match="the server did not answer within 3 s"):
            asyncio.run(Waits().within(seconds, inner(), "the pool", "a worker to start"))
