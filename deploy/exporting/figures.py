"""What a run measured of the very weights that are exported."""

from dataclasses import dataclass

from deploy.exporting.source import Source
from deploy.records.best import BestLora
from deploy.records.folder import RunFolder
from rc_grpo.evaluation.gains import HeldOut, PairedGain
from rc_grpo.kept import damaged


@dataclass(frozen=True)
class Figures:
    """Held-out figures.

    Attributes:
        update: updates made before the evaluation.
        gains: of the task reward, under ``reward``, and of each judge; before is the run's first evaluation.
        drift: mean background drift before and after.
        untrained: before is the base model itself.
        exact: the evaluated version has the exported weights' digest; otherwise the run only says that the weights
            were written from it.
    """

    update: int
    gains: dict[str, PairedGain]
    drift: tuple[float, float]
    untrained: bool
    exact: bool


def figures_of(source: Source) -> Figures | str:
    """Return a run's figures of a LoRA, or in words why there are none.

    Raises:
        rc_grpo.kept.DamagedFileError: a file of the run is not what it wrote.
    """
    if source.run is None:
        return "these weights were exported from no run's folder"
    evaluations = _evaluations(source.run)
    if len(evaluations) < 2:
        return "the run made fewer than two held-out evaluations"
    same = [update for update, taken in evaluations.items() if taken.version.digest == source.digest]
    update = same[-1] if same else _written_after(source.run, source)
    first = min(evaluations)
    if update is None or update not in evaluations or update == first:
        return "none of the run's held-out evaluations is of these weights"
    before, after = evaluations[first], evaluations[update]
    try:
        gains = {"reward": PairedGain.between(before, after)}
        if len(before.rewards) > 1:
            gains |= PairedGain.of_each_judge(before, after)
    except ValueError as error:
        return str(error)
    drift = (float(before.background_drift.mean()), float(after.background_drift.mean()))
    return Figures(update, gains, drift, before.version.is_identity, bool(same))


def _evaluations(run: RunFolder) -> dict[int, HeldOut]:
    found = {}
    for update, text in run.evaluations().items():
        try:
            found[update] = HeldOut.from_json(text)
        except ValueError as error:
            raise damaged(run.evaluation_file(update), str(error), "bring it back from a copy, or remove it") from error
    return found


def _written_after(run: RunFolder, source: Source) -> int | None:
    """Return the update after which the run says that it wrote these weights."""
    best = BestLora(run.path)
    told = best.measured if source.folder.resolve() == best.folder else run.summary
    if told is None or told.get("exported_digest") != source.digest:
        return None
    return int(told["update"] if "update" in told else told["updates"])
