"""A study's results on the screen."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.study.results import Results
from rc_grpo.evaluation.compbench.paper import STUDY
from rc_grpo.evaluation.intervals import LEVEL, Interval

NOT_SURE = "not sure"


def print_results(results: Results, console: Console) -> None:
    """Print the shares, the pairs, what the places say, and the paper's numbers beside."""
    people = len(results.participants)
    interval = f"{LEVEL:.0%} interval"
    shares = Table("model", title=f"{results.trials} of {results.possible} trials, {people} participant(s)")
    for column in ("chosen", "share", interval):
        shares.add_column(column, justify="right")
    for index, row in enumerate(results.shares):
        name = NOT_SURE if row.answer is None else row.answer
        last_model = index == len(results.shares) - 2
        shares.add_row(escape(name), str(row.won), _percent(row.share), _range(row.interval), end_section=last_model)
    console.print(shares)
    duels = Table("first", "against", title="pairs, among the trials that either won")
    for column in ("won", "lost", "share of the first", interval, "p"):
        duels.add_column(column, justify="right")
    for duel in results.duels:
        p = "-" if duel.p is None else f"{duel.p:.2g}"
        numbers = (str(duel.wins), str(duel.losses), _percent(duel.share), _range(duel.interval), p)
        duels.add_row(escape(duel.first), escape(duel.second), *numbers)
    console.print(duels)
    chosen = sum(results.places)
    if chosen:
        places = ", ".join(f"{number}: {count / chosen:.0%}" for number, count in enumerate(results.places, 1))
        console.print(f"Chosen by place on the page, whatever the model: {places}.", highlight=False)
    published = ", ".join(f"{model} {share:.1%}" for model, share in STUDY.shares.items())
    said = f"For comparison, {STUDY.source} ({STUDY.trials} trials): {published}."
    for line in (f"Intervals: {results.method}.", *results.notes, said):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _range(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:.1%} .. {interval[1]:.1%}"
