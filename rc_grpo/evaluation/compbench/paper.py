"""The paper's numbers, to stand beside a run's: tables on CompBench, and a study of preference. The data are a file."""

from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml


@dataclass(frozen=True)
class Published:
    """A row of the paper's tables; the fields after the method are `rc_grpo.evaluation.compbench.scores.METRICS`."""

    method: str
    lc_i: float
    lc_t: float
    psnr: float
    ssim: float
    lpips: float


@dataclass(frozen=True)
class PublishedStudy:
    """The paper's study of preference. Its pictures, people and models were others: for orientation only.

    Attributes:
        source: where it stands.
        trials: how many there were.
        shares: model -> share of the trials in which its edit was chosen.
    """

    source: str
    trials: int
    shares: dict[str, float]


_FILE: dict[str, Any] = yaml.safe_load(resources.files(__package__).joinpath("paper.yaml").read_text())

SOURCE: str = _FILE["source"]
ROWS: dict[str, tuple[Published, ...]] = {
    compared: tuple(Published(*row) for row in rows) for compared, rows in _FILE["tables"].items()
}
"""What is compared -> rows."""
STUDY = PublishedStudy(**_FILE["study"])


def published(name: str) -> Published | None:
    """Return the row of a model by its name, however that is capitalised and punctuated; None where no one row is its.

    What a row's method says in brackets need not be in the name.
    """
    found = {
        row
        for rows in ROWS.values()
        for row in rows
        if _letters(name) in (_letters(row.method), _letters(row.method.partition("(")[0]))
    }
    return found.pop() if len(found) == 1 else None


def _letters(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum() or character == "+")
