"""How a run can be watched, in a line for whoever started it, or looks at its status."""

import os
import shlex
import socket
import sys
from pathlib import Path

WATCH_PORT = 8101


def how_to_watch(folder: Path, *, from_elsewhere: bool = False) -> str:
    """Return the command that serves a run's live page.

    Args:
        folder: of the run.
        from_elsewhere: add how its port comes to the screen of somebody who is not on this machine, as with a
            submitted job: by ssh, or out of a pod.
    """
    command = f"rc-grpo watch {shlex.quote(str(folder))}"
    if not from_elsewhere:
        return command
    here = socket.gethostname()
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return f"kubectl port-forward {here} {WATCH_PORT} & kubectl exec -it {here} -- {command}"
    # By its path: a shell that ssh opens for one command knows no virtual environment.
    ours = Path(sys.executable).with_name("rc-grpo")
    there = command.replace("rc-grpo", shlex.quote(str(ours)), 1) if ours.is_file() else command
    return f"ssh -t -L {WATCH_PORT}:127.0.0.1:{WATCH_PORT} {here} {there}"
