"""Runs side by side, each leaving one file of JSON lines; what has its file already is left as it is."""

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Queue
from typing import Any, Protocol, TypeVar

Log = Callable[[dict[str, Any]], None]


class Run(Protocol):
    """A run to be made, small enough to be sent to another process."""

    def file(self, folder: Path) -> Path:
        """Return where its lines go."""
        ...

    def head(self) -> dict[str, Any]:
        """Return its first line: which run it is."""
        ...

    def make(self, log: Log) -> None:
        """Make it, with a line for every update and every evaluation."""
        ...


AnyRun = TypeVar("AnyRun", bound=Run)


def side_by_side(todo: Sequence[AnyRun], folder: Path, processes: int) -> Iterator[AnyRun]:
    """Make what has no file yet, several at a time, spread evenly over the machine's cards, and yield each as it ends.

    A run's numbers stand under their name only when it has ended: one that was cut off is made again from its start.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    missing = [run for run in todo if not run.file(folder).is_file()]
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(processes, maxtasksperchild=1) as pool:
        cards, count = manager.Queue(), torch.cuda.device_count()
        for process in range(processes):
            cards.put(process % count if count else None)
        share = count / processes
        yield from pool.imap_unordered(_make, [(run, folder, cards, share) for run in missing], chunksize=1)


def rounded(value: Any) -> Any:
    """Return JSON-like values with numbers to five significant digits: the files are kept in the repository."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def _make(arguments: tuple[AnyRun, Path, "Queue[int | None]", float]) -> AnyRun:
    run, folder, cards, share = arguments
    card, began, final = cards.get(), time.monotonic(), run.file(folder)
    on: dict[str, Any] = {}
    if card is not None:
        # Each run is a new process: only one that computes loads what it computes with.
        import torch

        torch.cuda.set_device(card)
        on = {"card": torch.cuda.get_device_name(card), "card_share": share}
    unfinished = final.with_suffix(".unfinished")
    try:
        with unfinished.open("w", buffering=1) as file:

            def log(record: dict[str, Any]) -> None:
                file.write(json.dumps(rounded(record | {"seconds": time.monotonic() - began})) + "\n")

            log(run.head() | on)
            run.make(log)
        unfinished.rename(final)
    finally:
        cards.put(card)
    return run
