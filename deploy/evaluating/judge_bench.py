"""``rc-grpo judge-bench``: the judges of a configuration against what people preferred."""

import asyncio
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rc_grpo.config import AnyJudgeConfig, ConfigError, RewardConfig
from rc_grpo.data.formats.preferences import Pair, read_pairs
from rc_grpo.durable import write_whole
from rc_grpo.editor.geometry import resize_image
from rc_grpo.evaluation.compbench.scores import plain
from rc_grpo.evaluation.likeness import Likeness, Opinions, compared
from rc_grpo.evaluation.preferences import Agreement, Compared, agreement
from rc_grpo.images import decode_rgb
from reward_service.factory import check_judge
from reward_service.judge import Judge, JudgeSetupError, JudgeUnavailableError
from reward_service.probing import opened
from reward_service.scoring import verdicts_of

WHOLE = "all"
"""What the figures over all subsets go by."""

_REASONS = 3


@dataclass
class Bench:
    """What one judge made of the pairs.

    Attributes:
        judge: its name in the configuration.
        compared: the comparisons by subset.
        images: edits that it was asked about.
        seconds: from the first question to the last answer, reading included.
        reasons: why it scored some not; the first few.
        opinions: what it said of each edit and pair.
    """

    judge: str
    compared: dict[str, list[Compared]] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)
    opinions: Opinions = field(default_factory=Opinions)

    def agreements(self, margin: float) -> dict[str, Agreement]:
        """Return the figures over all pairs, and by subset where there are several."""
        subsets = self.compared if len(self.compared) > 1 else {}
        whole = [pair for pairs in self.compared.values() for pair in pairs]
        return {name: agreement(pairs, margin) for name, pairs in {WHOLE: whole, **subsets}.items()}

    @property
    def seconds_an_image(self) -> float:
        """Wall seconds for each edit, as many at a time as the judge takes."""
        return self.seconds / self.images if self.images else float("nan")

    def as_json(self, margin: float) -> dict[str, Any]:
        """Return plain values."""
        return {
            "images": self.images,
            "seconds": self.seconds,
            "seconds_an_image": plain(self.seconds_an_image),
            "agreement": {name: found.as_json() for name, found in self.agreements(margin).items()},
            "reasons": self.reasons,
        }


def show_bench(
    reward: RewardConfig,
    pairs: Path,
    console: Console,
    *,
    judges: Sequence[str] = (),
    limit: int | None = None,
    margin: float = 0.0,
    out: Path | None = None,
    machine_readable: bool = False,
) -> None:
    """Ask each judge about every pair, and print figures as a table or JSON; write the JSON where asked.

    Args:
        reward: the judges.
        pairs: as of `rc_grpo.data.formats.preferences.read_pairs`.
        console: where to print.
        judges: names of those to ask; all if none is given.
        limit: at most so many comparisons, the first.
        margin: rewards that differ by no more are a tie.
        out: file for the JSON.
        machine_readable: print JSON instead of a table.

    Raises:
        ConfigError: there is no such judge, or it needs what pairs do not have.
        DataError: the pairs cannot be read.
        JudgeSetupError: a judge cannot be made or opened, or is gone for good.
    """
    chosen = _chosen(reward, judges)
    for name, config in chosen.items():
        check_judge(name, config)
        _check_needs(name, config, pairs)
    found = []
    for name, config in chosen.items():
        with console.status(f"asking {name} ..."):
            found.append(asyncio.run(_asked(name, config, islice(read_pairs(pairs), limit))))
    alike = compared({bench.judge: bench.opinions for bench in found}, margin)
    record = {"pairs": str(pairs), "margin": margin, "judges": {bench.judge: bench.as_json(margin) for bench in found}}
    text = json.dumps(record | {"alike": {names: pair.as_json() for names, pair in alike.items()}}, indent=2)
    if out is not None:
        write_whole(out, text + "\n")
    if machine_readable:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(_table(found, margin))
        if alike:
            console.print(_alike(alike))
        for bench in found:
            for reason in bench.reasons:
                console.print(Text(f"{bench.judge} scored not: {reason}", "yellow"), soft_wrap=True)


def _chosen(reward: RewardConfig, judges: Sequence[str]) -> dict[str, AnyJudgeConfig]:
    if unknown := [name for name in judges if name not in reward.judges]:
        raise ConfigError(
            f"--judge {unknown[0]} is no judge of the configuration; its judges are {', '.join(reward.judges)}"
        )
    return {name: reward.judges[name] for name in judges or reward.judges}


def _check_needs(name: str, config: AnyJudgeConfig, path: Path) -> None:
    first = next(read_pairs(path))
    if lacking := [need for need in config.needs if getattr(first.task, need) is None]:
        raise ConfigError(
            f"judge {name!r} ({config.kind}) needs the {lacking[0]} of every task, and {first.place} has none; leave "
            "it out (--judge another)" + (", or add a column caption" if lacking == ["caption"] else "")
        )


async def _asked(name: str, config: AnyJudgeConfig, pairs: Iterable[Pair]) -> Bench:
    bench = Bench(name)
    places = asyncio.Semaphore(config.groups_in_flight)
    with tempfile.TemporaryDirectory() as logs:
        async with opened(config, Path(logs)) as judge:
            started = time.perf_counter()
            asked: set[asyncio.Task[None]] = set()
            try:
                for group in ([pair] for pair in pairs) if config.relative else _groups(pairs):
                    await places.acquire()
                    task = asyncio.create_task(_ask(judge, group, bench, places, relative=config.relative))
                    asked.add(task)
                    # Of what is done, errors come up at once, and no task of thousands is kept.
                    for done in [task for task in asked if task.done()]:
                        asked.discard(done)
                        done.result()
                await asyncio.gather(*asked)
            except JudgeUnavailableError as error:
                raise JudgeSetupError(f"judge {name} does not answer any more: {error}") from error
            finally:
                for task in asked:
                    task.cancel()
            bench.seconds = time.perf_counter() - started
    return bench


def _groups(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """Yield the comparisons of one source, which stand one after the other: its edits are scored once, and together."""
    for _, group in groupby(pairs, key=lambda pair: pair.group):
        yield list(group)


async def _ask(judge: Judge, pairs: Sequence[Pair], bench: Bench, places: asyncio.Semaphore, *, relative: bool) -> None:
    try:
        edits = list(dict.fromkeys(edit for pair in pairs for edit in pair.candidates))
        height, width = decode_rgb(pairs[0].task.source).shape[:2]
        images = np.stack([resize_image(decode_rgb(edit), height, width) for edit in edits])
        verdicts = await verdicts_of(judge, pairs[0].task, images, bench.judge)
    finally:
        places.release()
    rewards = {edit: verdict.reward for edit, verdict in zip(edits, verdicts, strict=True)}
    failures = [str(verdict.reason) for verdict in verdicts if np.isnan(verdict.reward)]
    bench.reasons += [f"{pairs[0].place}: {reason}" for reason in failures][: max(0, _REASONS - len(bench.reasons))]
    bench.images += len(edits)
    if not relative:
        bench.opinions.rewards[pairs[0].place] = tuple(rewards.values())
    for pair in pairs:
        first, second = (rewards[edit] for edit in pair.candidates)
        bench.opinions.differences[pair.place] = first - second
        bench.compared.setdefault(pair.subset, []).append(Compared(pair.human, first - second, pair.group))


def _table(found: Sequence[Bench], margin: float) -> Table:
    table = Table(
        caption=f"a tie is a difference of {margin:g} or less; all pairs of a group right: of those with several"
    )
    for heading in ("judge", "subset", "pairs", "failed", "accuracy", "without ties", "ties", "group", "s / image"):
        table.add_column(heading, justify="left" if heading in ("judge", "subset") else "right")
    for bench in found:
        for subset, figures in bench.agreements(margin).items():
            table.add_row(
                Text(bench.judge if subset == WHOLE else ""),
                Text(subset),
                str(figures.pairs),
                str(figures.failed),
                _percent(figures.accuracy),
                _percent(figures.accuracy_without_ties),
                _percent(figures.judge_ties),
                _percent(figures.group_accuracy),
                f"{bench.seconds_an_image:.3g}" if subset == WHOLE else "",
            )
    return table


def _alike(found: Mapping[str, Likeness]) -> Table:
    table = Table(caption="how alike the judges are; ranks: rank correlation of rewards, of all and within a source")
    for heading in ("judges", "edits", "ranks", "within", "difference", "pairs", "same preference"):
        table.add_column(heading, justify="left" if heading == "judges" else "right")
    for names, pair in found.items():
        figures = (f"{value:.3f}" for value in (pair.spearman, pair.within, pair.difference))
        table.add_row(Text(names), str(pair.images), *figures, str(pair.pairs), _percent(pair.preferences))
    return table


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.1f} %"
