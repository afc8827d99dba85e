"""What a person watching a run sees: a bar with what matters, a curve, the time left; or plain lines on no screen."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from deploy.watching.curve import curve
from rc_grpo.evaluation.gains import PairedGain
from rc_grpo.waiting import in_words

SAY_A_WAIT_AFTER_S = 60.0
_CURVE_COLUMNS = 48
SPEED_OVER_S = 3600.0
"""The time left is told from the updates of so long: one can take many minutes."""


class _Screen(Bars):
    """Bars, and lines beneath them that are cut at the screen's edge: no length of theirs takes room from a bar."""

    def __init__(self, console: Console) -> None:
        self.beneath: dict[str, str] = {}
        super().__init__(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            BarColumn(None, table_column=Column(min_width=10, ratio=1)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            console=console,
            expand=True,
            speed_estimate_period=SPEED_OVER_S,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield what is drawn, from top to bottom."""
        yield self.make_tasks_table(self.tasks)
        for line in filter(None, self.beneath.values()):
            yield Text(line, style="dim", no_wrap=True, overflow="ellipsis")


class Progress:
    """Shows a run on a console.

    Args:
        console: the terminal; lines are printed where it is none.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._bars = _Screen(self.console)
        self._training: TaskID | None = None
        self._said = time.monotonic()
        self._rewards: list[float] = []

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        # What was true while it ran would stay on the screen.
        self._bars.beneath.pop("waits", None)
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars, as it is: ids and errors of others may look like markup."""
        self.console.print(Text(text))

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show what is being waited for."""
        self.say(f"{what} ...")
        bar = self._bars.add_task(what, total=None)
        try:
            yield
        finally:
            self._bars.remove_task(bar)

    def waiting_for(self, waits: Sequence[Mapping[str, Any]]) -> None:
        """Show the longest waits (see `rc_grpo.waiting.Wait.as_dict`): in a terminal always, else one of a minute."""
        if self.console.is_terminal:
            self._bars.beneath["waits"] = "; ".join(in_words(waits, 2))
            return
        longest = max((wait["seconds"] for wait in waits), default=0.0)
        now = time.monotonic()
        if longest >= SAY_A_WAIT_AFTER_S and now - self._said >= SAY_A_WAIT_AFTER_S:
            self._said = now
            self.say("; ".join(in_words(waits, 3)))

    @contextmanager
    def phase(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Show a phase of known length; yields what to call after each item."""
        if not self.console.is_terminal:
            self.say(f"{what} ...")
        bar = self._bars.add_task(what, total=total)
        try:
            yield lambda: self._bars.advance(bar)
        finally:
            self._bars.remove_task(bar)

    def update(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Show a finished update."""
        note = (
            f"reward {metrics['reward/task_mean']:.3f}  drift {metrics['background_drift/mean']:.3f}  "
            f"skipped {metrics['groups_skipped/share']:.0%}  {metrics['seconds/update_total']:.1f} s/update"
        )
        self._rewards.append(metrics["reward/task_mean"])
        drawn = f"reward by update: {curve(self._rewards, _CURVE_COLUMNS)}"
        if not self.console.is_terminal:
            self.say(f"update {done}/{total}  {note}")
            if done == total:
                self.say(drawn)
            return
        if self._training is None:
            self._training = self._bars.add_task("updates", total=total)
        self._bars.beneath |= {"figures": note, "curve": drawn}
        self._bars.update(self._training, completed=done)

    def gains(self, gains: Mapping[str, PairedGain]) -> None:
        """Print what training did to the held-out reward of each judge."""
        table = Table(title="Held-out reward, same tasks, same seeds")
        table.add_column("judge")
        for column in ("tasks", "before", "after", "gain", "paired standard error", "gain / standard error"):
            table.add_column(column, justify="right")
        for name, gain in gains.items():
            table.add_row(
                name,
                str(gain.tasks),
                f"{gain.before:.4f}",
                f"{gain.after:.4f}",
                f"{gain.gain:+.4f}",
                f"{gain.standard_error:.4f}",
                f"{gain.in_standard_errors:+.1f}",
            )
        self.console.print(table)
