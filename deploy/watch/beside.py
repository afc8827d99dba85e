"""A run's page served beside its driver, from a process of its own that ends with it (``output.watch``)."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.web.listening import STOP_DEADLINE_S
from reward_service.serving import guardian


@contextmanager
def page_beside(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Serve a run's page for as long as the block runs. What becomes of it is said, and never the run's concern.

    Args:
        folder: of the run.
        say: takes its link, and whatever else it says, a line at a time and from another thread.
    """
    command = [sys.executable, "-m", "deploy.cli", "watch", str(folder), "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, guardian.__file__, f"{STOP_DEADLINE_S:g}", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Ctrl-C is for the run, which has an update to finish.
        start_new_session=True,
    )
    listening = threading.Thread(target=_pass_on, args=(process, say), name="page", daemon=True)
    listening.start()
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        listening.join()


def _pass_on(process: "subprocess.Popen[str]", say: Callable[[str], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        say(f"live page: {line.rstrip()}")
