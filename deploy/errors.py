"""Errors that the user can mend are said in a line or two; everything else keeps its traceback."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from deploy import stopping
from deploy.stopping import GuardError, RunStoppedError

EXIT_CODE = 2


def mendable() -> tuple[type[Exception], ...]:
    """Return the errors that the user can mend; asked for once there is an error, as their modules import torch."""
    from deploy.cluster import PlacementError
    from deploy.records.checkpoints import CheckpointError
    from deploy.records.folder import RunBusyError
    from deploy.tracking.tracker import TrackerError
    from learner.errors import LearnerLostError, NonFiniteError, UnsharedFolderError
    from rc_grpo.editor.finite import NonFiniteEditError
    from rc_grpo.pool import PoolError
    from rc_grpo.waiting import DeadlineExceededError
    from reward_service.judge import JudgeSetupError
    from reward_service.vllm_server import ServerStartError

    return (
        CheckpointError,
        GuardError,
        PlacementError,
        RunBusyError,
        TrackerError,
        LearnerLostError,
        NonFiniteEditError,
        NonFiniteError,
        UnsharedFolderError,
        DeadlineExceededError,
        PoolError,
        JudgeSetupError,
        ServerStartError,
        ValueError,
        FileExistsError,
        IsADirectoryError,
        NotADirectoryError,
        PermissionError,
    )


@contextmanager
def plain_errors() -> Iterator[None]:
    """Run a command; on an error that its user can mend, say it on stderr and exit with 2."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        yield
    except RunStoppedError as stopped:
        Console(stderr=True).print(Text(str(stopped)), soft_wrap=True)
        sys.exit(stopping.EXIT_CODE)
    except mendable() as error:
        from ray.exceptions import RayTaskError

        # Of an actor's error Ray shows the remote traceback; what it says is in its cause.
        said = str(error.cause if isinstance(error, RayTaskError) else error)
        # As it is: markup and emoji codes in what others said are theirs.
        Console(stderr=True).print(Text.assemble(("error:", "red"), f" {said}"), soft_wrap=True)
        sys.exit(EXIT_CODE)
