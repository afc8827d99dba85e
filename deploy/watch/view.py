"""The page of a run, part by part: from what its folder holds now, and what its driver says."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from deploy.records.folder import CONFIG, RunFolder
from deploy.records.metrics import METRICS
from deploy.records.reading import RunRecord, config_of, record_of
from deploy.report.arms import arms_of
from deploy.report.curves import SMOOTHED_ABOVE
from deploy.report.panels import curve_sections, time_by_phase
from deploy.report.summary import watched
from deploy.report.templating import environment, minus
from deploy.watch.newest import newest
from deploy.watch.state import State, pace_of, state_of
from deploy.watch.tail import MetricsTail
from deploy.watching.status import COLUMNS, WAITS_SHOWN
from deploy.web.policy import digest
from rc_grpo.evaluation import alarm
from rc_grpo.kept import DamagedFileError

SLOTS = ("head", "remarks", "alarm", "pools", "curves", "groups", "time")
"""Parts of the page, by which its places are named."""


class View:
    """Reads a run's folder and writes the parts. One thread at a time uses it: it draws with matplotlib.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._tail = MetricsTail(folder.path / METRICS)
        self._templates = environment("deploy.watch", "deploy.report")
        self._templates.filters |= {"duration": duration, "gained": gained}
        self._page = self._templates.get_template("watch.html.j2")
        self._script = self._templates.get_template("watch.js").render()
        self._style = self._templates.get_template("watch.css").render()
        self._seen: tuple[Any, ...] = ()
        self._faults: dict[str, str] = {}
        self._config_of, self._updates = -1, 0

    @property
    def policy(self) -> str:
        """The content security policy under which nothing runs but the page's own script."""
        return (
            # Drawings say in their elements which of the style sheet's colours they have.
            f"default-src 'none'; script-src '{digest(self._script)}'; style-src '{digest(self._style)}'; "
            "style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        )

    def page(self, parts: Mapping[str, str], mark: str) -> str:
        """Return the whole page as it is after a mark (see `deploy.watch.board`)."""
        return self._page.render(
            name=self._folder.path.name,
            slots={name: Markup(parts.get(name, "")) for name in SLOTS},
            mark=mark,
            style=Markup(self._style),
            script=Markup(self._script),
        )

    def live(self, status: Mapping[str, Any] | None, silence: str) -> dict[str, str]:
        """Return what changes by the second: the head and the pools.

        Args:
            status: see `deploy.watching.snapshot.Snapshot.as_dict`; None where the driver does not answer.
            silence: why it does not.
        """
        try:
            self._tail.read()
            self._fault("metrics", self._tail.remark)
        except OSError as error:
            self._fault("metrics", f"{METRICS} cannot be read: {error.strerror or error}")
        pace = pace_of(self._tail.curves, self._planned(status))
        try:
            state = state_of(self._folder, status, silence, pace.seconds)
            self._fault("state", "")
        except DamagedFileError as error:
            state = State("not reachable", str(error))
        pools = [(role, summary) for role, summary in status["pools"].items()] if status else []
        waits = sorted(status["waits"], key=lambda wait: -wait["seconds"]) if status else []
        head = self._part("head", name=self._folder.path.name, state=state, pace=pace, status=status)
        choices = json.dumps([[role, summary["wanted"]] for role, summary in pools])
        shown = self._part(
            "pools",
            state=state,
            status=status,
            pools=pools,
            columns=[name for name in COLUMNS if name not in ("workers", "wanted")],
            waits=waits[:WAITS_SHOWN],
            more=len(waits) - WAITS_SHOWN,
            choices=choices,
        )
        return {"head": head, "pools": shown, "remarks": self._remarks()}

    @property
    def drawn_already(self) -> bool:
        """Whether the folder is as it was when it was last drawn."""
        return self._seen == self._contents()

    def drawn(self) -> dict[str, str]:
        """Return what changes by the update: alarm, curves, groups, time by phase."""
        self._seen = self._contents()
        try:
            run = record_of(self._folder.path, self._folder.path.name, self._tail.curves)
            self._fault("record", "")
        except (DamagedFileError, OSError) as error:
            # It may be in the middle of going back to a checkpoint: what was drawn before stays until it can be read.
            self._fault("record", f"The page is of earlier, as the folder cannot be read: {error}")
            return {"remarks": self._remarks()}
        return {**self._drawn(run), "remarks": self._remarks()}

    def _drawn(self, run: RunRecord) -> dict[str, str]:
        return {
            "alarm": self._part("alarm", watched=[watched(run)], rule=alarm),
            "curves": self._part(
                "curves",
                sections=curve_sections([run], arms_of([run])),
                smoothed_above=SMOOTHED_ABOVE if len(run.updates) > SMOOTHED_ABOVE else None,
            ),
            "groups": self._part("groups", newest=newest(self._folder, run.config)),
            "time": self._part("time", phases=time_by_phase([run])),
        }

    def _contents(self) -> tuple[Any, ...]:
        """Return what tells one state of the folder from the next, without reading it."""
        folder, curves = self._folder, self._tail.curves
        files: Sequence[Any] = [max(found, default=0) for found in (folder.grids(), folder.experience())]
        held = tuple((key, *values) for key, values in sorted(curves.heldout.items()))
        evaluations = len(list(folder.path.glob("evaluations/update-*.json")))
        return self._tail.generation, len(curves), held, evaluations, folder.finished, *files

    def _planned(self, status: Mapping[str, Any] | None) -> int:
        if status:
            return int(status["updates"])
        try:
            written = (self._folder.path / CONFIG).stat().st_mtime_ns
            if written != self._config_of:
                self._updates = config_of(self._folder.path)["loop"]["updates"]
                self._config_of = written
            self._fault("config", "")
        except (DamagedFileError, OSError) as error:
            self._fault("config", str(error))
        return self._updates

    def _fault(self, where: str, said: str) -> None:
        self._faults[where] = said

    def _remarks(self) -> str:
        return self._part("remarks", remarks=list(filter(None, self._faults.values())))

    def _part(self, part: str, /, **context: Any) -> str:
        template: Template = self._templates.get_template(f"{part}.html.j2")
        return template.render(context)


def duration(seconds: float) -> str:
    """Return a time for people, such as ``1 h 05 min``; a dash for NaN."""
    if math.isnan(seconds):
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 600:
        return "{} min {:02d} s".format(*divmod(int(seconds), 60)).removesuffix(" 00 s")
    hours, minutes = divmod(round(seconds / 60), 60)
    days, of_day = divmod(hours, 24)
    if days:
        return f"{days} d {of_day} h".removesuffix(" 0 h")
    return f"{hours} h {minutes:02d} min".removesuffix(" 00 min").removeprefix("0 h ")


def gained(values: tuple[float, float]) -> str:
    """Return the difference of two figures with its sign."""
    return minus(f"{values[1] - values[0]:+.3f}")
