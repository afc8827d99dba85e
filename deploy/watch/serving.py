"""``rc-grpo watch``: a run's page, from the command to Ctrl-C."""

import asyncio
import os
import re
import secrets
from pathlib import Path

from rich.console import Console

from deploy.records.folder import RunFolder
from deploy.records.reading import check_run
from deploy.watch.line import Line
from deploy.watch.server import make_app
from deploy.watching.remote import find_folder, runs_in
from deploy.web.listening import serve_until_signal
from rc_grpo.config import ConfigError

TOKEN_VARIABLE = "RC_GRPO_WATCH_TOKEN"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")


def run_watch(run: str | None, address: str | None, root: Path, host: str, port: int, console: Console) -> None:
    """Serve the page of a run that goes on, will go on, or is over, until a signal ends it.

    Args:
        run: name or folder; None for the only one that is driven.
        address: of its cluster; None for what its folder says.
        root: folder of the runs' folders.
        host: address to listen at.
        port: 0 takes any that is free.
        console: where to say the link.

    Raises:
        ConfigError: there is no such run, or the token is none.
        ValueError: it is no run's folder, or the address to listen at is taken.
    """
    folder = find_folder(run, root)
    if folder is None:
        there = ", ".join(path.name for path in runs_in(root)[:5])
        raise ConfigError(
            f"there is no run {run or 'under way'} in {root}; name its folder, such as runs/NAME"
            + (f", or one of those there: {there}" if there else "")
        )
    check_run(folder)
    files, token = RunFolder(folder), link_token()

    def say(link: str) -> None:
        said = f"{files.path.name} is at {link}\nCtrl-C ends this page, and not the run."
        console.print(said, highlight=False, markup=False, soft_wrap=True)

    asyncio.run(serve_until_signal(make_app(files, Line(files.path, address), token), host, port, token, say))


def link_token() -> str:
    """Return the token that the page wants: the environment's, or one that was made up.

    Raises:
        ConfigError: the environment's is too short to be a secret, or would not be whole in a link.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if given is None:
        return secrets.token_urlsafe(24)
    if not _TOKEN.fullmatch(given):
        raise ConfigError(
            f"{TOKEN_VARIABLE} is no token: 16 to 200 letters, digits, - and _ are one (openssl rand -hex 24 makes it)"
        )
    return given
