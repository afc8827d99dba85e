"""What ``make train`` computes is what it computed when the series was recorded."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.integration.series import RECORDED, RELATIVE, differences, figures_of, machine, train_the_series


def test_a_short_run_gives_the_figures_that_were_recorded(
    tmp_path: Path, cluster: None, record_property: Callable[[str, object], None]
) -> None:
    recorded = json.loads(RECORDED.read_text())
    other = [f"{key} {now}, recorded with {recorded['machine'].get(key)}" for key, now in machine().items()
             if recorded["machine"].get(key) != now]  # fmt: skip
    how = f"to {RELATIVE:g}: {'; '.join(other)}" if other else "bit for bit"
    record_property("said", f"the series of `make train` is compared {how}")
    found = figures_of(train_the_series(tmp_path))
    assert list(differences(recorded, found, to_the_bit=not other)) == []
