"""``rc-grpo status`` and ``rc-grpo scale``: what a run that goes on somewhere is asked and told."""

from pathlib import Path

import ray
from rich.console import Console

from deploy.watching.invitation import how_to_watch
from deploy.watching.remote import NotRunningError, control_of, find_folder, runs_in
from deploy.watching.status import draw_folder, draw_status

ANSWER_DEADLINE_S = 30.0


def show_status(run: str | None, address: str | None, root: Path, console: Console) -> None:
    """Print where a run is; of one that nobody drives, what its folder says; where none is driven, the runs there are.

    Args:
        run: name or folder; None for the only one.
        address: of its cluster; None for what its folder says.
        root: folder of the runs' folders.
        console: to print on.

    Raises:
        NotRunningError: there is neither such a run nor its folder.
    """
    try:
        with control_of(run, address, root) as control:
            status = ray.get(control.status.remote(), timeout=ANSWER_DEADLINE_S)
        if status:
            console.print(draw_status(status))
            _say_how_to_watch(Path(status["folder"]), console)
        else:
            console.print("its driver has only begun, and has said nothing yet")
    except NotRunningError:
        folder = find_folder(run, root)
        folders = runs_in(root) if folder is None and run is None else [folder]
        if folders in ([], [None]):
            raise
        there = list(filter(None, folders))
        for found in there:
            console.print(draw_folder(found), soft_wrap=True, highlight=False, markup=False)
        if len(there) == 1:
            _say_how_to_watch(there[0], console)


def _say_how_to_watch(folder: Path, console: Console) -> None:
    # Whole in its line, to be copied, however narrow the screen.
    console.print(f"live page: {how_to_watch(folder)}", soft_wrap=True, highlight=False, markup=False)


def order_scale(pool: str, workers: int, run: str | None, address: str | None, root: Path, console: Console) -> None:
    """Have a pool of a run resized, and print the driver's answer; see `show_status` for the arguments.

    Raises:
        NotRunningError: nobody drives the run.
    """
    with control_of(run, address, root) as control:
        console.print(ray.get(control.scale.remote(pool, workers), timeout=ANSWER_DEADLINE_S), highlight=False)
