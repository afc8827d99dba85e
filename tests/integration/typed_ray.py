"""Ray's command line as a page has it, on a machine that others use too: a cluster of its own, in ``RAY_TMPDIR``.

``ray stop`` would end every Ray of this user: here it ends the one that ``ray start`` started.
"""

import os
from pathlib import Path

from tests.integration.ray_nodes import BIN, end, free_port, started, wait_for

CPUS = 8


def run(given: list[str]) -> None:
    """Do what ``ray`` does with these words."""
    if given[:1] == ["start"]:
        _start(given)
    elif given == ["stop"]:
        stop(Path(os.environ["RAY_TMPDIR"]))
    else:
        os.execv(BIN / "ray", ["ray", *given])


def stop(folder: Path) -> None:
    """End the cluster whose temporary folder this is, if one was started."""
    if (note := folder / "head.pid").exists():
        end(int(note.read_text()))
        note.unlink()


def _start(given: list[str]) -> None:
    folder = Path(os.environ["RAY_TMPDIR"])
    small = [f"--num-cpus={CPUS}", "--object-store-memory=300000000", f"--dashboard-agent-listen-port={free_port()}"]
    log = folder / "head.log"
    node = started([str(BIN / "ray"), *given, "--block", "--disable-usage-stats", *small], os.environ, log)
    (folder / "head.pid").write_text(str(node.pid))
    wait_for(node, log)
    print(log.read_text())
