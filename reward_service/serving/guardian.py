"""Runs a command and makes sure that nothing of it outlives whoever asked for it.

``python guardian.py GRACE_SECONDS [--with FOLDER] COMMAND...`` with a pipe as standard input. The pipe's other end is
held by the asking process and closes when that process ends, however it ends: kill -9 included. The guardian then asks
the command to stop, waits, and kills what is left of it, daemons included, which as their subreaper it inherits; the
folder, of which nobody else takes care any more, it removes. It exits with the command's status. SIGTERM asks it to
stop as the closing pipe does; SIGUSR1 to kill at once. Standard library only, so that it starts in no time.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_POLL_SECONDS = 0.2


def main() -> int:
    """Guard the command of the command line."""
    grace, command, folder = float(sys.argv[1]), sys.argv[2:], ""
    if command[0] == "--with":
        _, folder, *command = command
    heard: list[int] = []
    left_alone = False
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda received, _frame: heard.append(received))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # A guardian that is itself killed takes the command's first process along.
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    )
    while child.poll() is None and not heard:
        if select.select([sys.stdin], [], [], _POLL_SECONDS)[0]:
            heard.append(signal.SIGTERM)
            left_alone = True
    if signal.SIGTERM in heard:
        child.terminate()
        deadline = time.monotonic() + grace
        while child.poll() is None and signal.SIGUSR1 not in heard and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    child.kill()
    status = child.wait()
    _kill_descendants()
    if folder and left_alone:
        shutil.rmtree(folder, ignore_errors=True)
    return status if status >= 0 else 128 - status


def _kill_descendants() -> None:
    """Kill and reap until nothing is left; orphans are adopted by this process, and so become its children."""
    deadline = time.monotonic() + 10.0
    while (left := descendants(os.getpid())) and time.monotonic() < deadline:
        for process in left:
            _kill(process)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.05)


def descendants(root: int) -> list[int]:
    """Return the process numbers below ``root``, from /proc; where there is none (macOS), nothing."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold anything; what follows it is regular.
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    below: list[int] = []
    layer = [root]
    while layer:
        layer = [process for process, parent in parents.items() if parent in layer]
        below += layer
    return below


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
