"""From the seconds of an update to the hours of a run, and what they cost in GPUs."""

from dataclasses import dataclass

from rc_grpo.config import RunConfig

_HOUR = 3600.0


@dataclass(frozen=True)
class Hours:
    """Of a whole run.

    Attributes:
        updates: planned.
        training: hours of them.
        evaluations: held-out ones, the first and the last included.
        evaluating: hours of them.
        gpus: held all the while.
        price: of one of them for an hour, in any currency; None is not known.
    """

    updates: int
    training: float
    evaluations: int
    evaluating: float
    gpus: int
    price: float | None = None

    @property
    def in_words(self) -> str:
        """One sentence for a person who asks for GPUs."""
        whole = self.training + self.evaluating
        exams = f"{self.evaluations} held-out evaluations take {self.evaluating:,.1f} h of it"
        money = "" if self.price is None else f", {whole * self.gpus * self.price:,.2f} at {self.price:,g} each"
        return (
            f"{self.updates:,} updates: about {whole:,.1f} hours, {whole * self.gpus:,.0f} GPU-hours{money}"
            + (f"; {exams}" if self.evaluations else "")
            + "; starts, stops and what fails come on top"
        )


def hours_of(
    config: RunConfig, *, update_s: float, heldout_edit_s: float, gpus: int, price: float | None = None
) -> Hours:
    """Return the hours of a run.

    Args:
        config: of the run.
        update_s: seconds of an update.
        heldout_edit_s: seconds that all pools together take for one held-out edit.
        gpus: of the whole cluster.
        price: of one of them for an hour.
    """
    updates, count = config.loop.updates, _evaluations(config)
    evaluating = count * config.evaluation.tasks * heldout_edit_s
    return Hours(updates, updates * update_s / _HOUR, count, evaluating / _HOUR, gpus, price)


def _evaluations(config: RunConfig) -> int:
    """Return how many there are: before the first update, after the last, and every so many in between."""
    evaluation = config.evaluation
    if config.data.heldout is None or not evaluation.tasks:
        return 0
    return 2 + (0 if evaluation.every is None else (config.loop.updates - 1) // evaluation.every)
