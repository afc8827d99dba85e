"""A short training that a vLLM judge scores, and what must be true of it however its judge fared."""

from benchmarks.runs import failed_scores
from tests.integration.conftest import Finished

UPDATES = 4
JUDGED = (
    f"loop.updates={UPDATES}",
    "loop.groups_per_update=3",
    "output.experience=scores",
    "reward.judges.editscore.sampling={passes: 1, max_tokens: 64}",
    "reward.judges.editscore.server.probe_every_s=1",
    "reward.judges.editscore.server.probe_deadline_s=2",
)


def check(run: Finished, *, some_fail: bool = False) -> dict[str, int]:
    assert len(run.updates) == UPDATES
    # The pocket judge's whole marks can tie every group of a batch of three; no step is taken then.
    steps = sum(update["groups_skipped/share"] < 1 for update in run.updates)
    assert run.summary["final_version"]["number"] == steps > 0
    counts = failed_scores(run.folder)
    assert counts["candidates"] == UPDATES * 3 * 4
    assert counts["failed_and_learned_from"] == 0
    assert (counts["failed"] > 0) == some_fail
    return counts
