import asyncio
import os
import signal

import pytest

from deploy.stopping import RunStoppedError, Stop


async def forever() -> None:
    await asyncio.sleep(60)


def test_work_that_may_be_given_up_is_given_up_at_the_signal() -> None:
    async def scenario() -> None:
        stop = Stop()
        with stop.on_signals(deadline_s=5):
            assert await stop.unless_asked(asyncio.sleep(0, "done")) == "done"
            asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
            with pytest.raises(RunStoppedError):
                await stop.unless_asked(forever())
            with pytest.raises(RunStoppedError):
                await stop.unless_asked(forever())

    asyncio.run(asyncio.wait_for(scenario(), 10))


@pytest.mark.parametrize("second", [True, False])
def test_a_second_signal_or_the_deadline_ends_what_will_not_stop(second: bool) -> None:
    async def scenario() -> None:
        with Stop().on_signals(deadline_s=60 if second else 0.05):
            loop = asyncio.get_running_loop()
            loop.call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
            if second:
                loop.call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
            await forever()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())


def test_an_error_of_the_work_is_its_own() -> None:
    async def broken() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(Stop().unless_asked(broken()))


@pytest.mark.parametrize("then", ["the deadline", "a signal"])
def test_a_stop_that_is_asked_for_from_outside_is_the_first_signal(then: str) -> None:
    async def scenario() -> None:
        stop = Stop()
        with stop.on_signals(deadline_s=60 if then == "a signal" else 0.05):
            assert stop.ask()
            assert stop.asked.is_set()
            if then == "a signal":
                asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(forever(), 10)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())


def test_asking_twice_from_outside_gives_up_no_update() -> None:
    async def scenario() -> None:
        stop = Stop()
        with stop.on_signals(deadline_s=60):
            assert (stop.ask(), stop.ask()) == (True, False)
            await asyncio.sleep(0.05)

    asyncio.run(scenario())
