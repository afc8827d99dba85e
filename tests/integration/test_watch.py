"""A real run on its page: seen, scaled and stopped by whoever has the link."""

import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from benchmarks.runs import records_of
from tests.integration.ray_nodes import eventually
from tests.integration.test_driver import ENDLESS, cli, no_word_of_a_cluster, settings, started, wait_for_updates

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]
__all__ = ["no_word_of_a_cluster"]


def link_of(page: "subprocess.Popen[str]") -> str:
    assert page.stdout is not None
    return next(found[0] for line in page.stdout if (found := re.search(r"http://127\.0\.0\.1:\S+", line)))


def seen(client: httpx.Client, word: str) -> bool:
    """Whether the page has a word while somebody follows it."""
    with client.stream("GET", "/events", timeout=60) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: {") and any(word in part for part in json.loads(line[6:]).values()):
                return True
    return False


def test_a_run_is_seen_scaled_and_stopped_through_its_page(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    run = started("train", "pocket", *settings(tmp_path, "watched", *ENDLESS))
    page = None
    try:
        wait_for_updates(folder, 1, run)
        page = started("watch", str(folder), "--port", "0")
        link = link_of(page)
        base = link.partition("?")[0].rstrip("/")
        assert httpx.get(base).status_code == 403
        with httpx.Client(base_url=base, headers={"Origin": base}, timeout=90, follow_redirects=True) as client:
            assert client.get(link).status_code == 200
            assert seen(client, "reward-ground_truth")
            answer = client.post("/scale", json={"pool": "rollout", "workers": 2})
            assert answer.json() == {"said": "rollout: 1 -> 2 workers"}
            eventually(lambda: records_of(folder)[-1].get("pool/rollout_workers") == 2, "update by two workers")
            assert client.post("/stop", json={}).json()["said"].startswith("stopping")
            output, _ = run.communicate(timeout=90)
            assert run.returncode == 143, output
            assert "as asked; go on with: rc-grpo train --resume" in output
            assert "rc-grpo watch" in output
            assert seen(client, "not running")
            assert client.post("/stop", json={}).status_code == 503
    finally:
        for process in filter(None, (run, page)):
            process.terminate()
            process.wait(60)


def test_the_driver_serves_the_page_where_it_is_asked_to(tmp_path: Path) -> None:
    folder = tmp_path / "beside"
    command = cli("train", "pocket", *settings(tmp_path, "beside", *ENDLESS, "output.watch=true"))
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert run.stdout is not None
        link = next(found[0] for line in run.stdout if (found := re.search(r"http://\S+\?token=\S+", line)))
        with httpx.Client(follow_redirects=True) as client:
            assert "beside" in client.get(link).text
        wait_for_updates(folder, 1, run)
    finally:
        run.terminate()
        run.communicate(timeout=90)
    with pytest.raises(httpx.ConnectError):
        httpx.get(link)
