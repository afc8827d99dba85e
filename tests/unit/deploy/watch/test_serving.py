import io
import re
from pathlib import Path
from typing import NoReturn

import pytest
from rich.console import Console

from deploy.cluster import UnreachableError
from deploy.watch.serving import TOKEN_VARIABLE, link_token, run_watch
from deploy.watching import remote
from deploy.watching.asking import show_status
from deploy.watching.invitation import how_to_watch
from rc_grpo.config import ConfigError
from tests.unit.deploy.report.folders import write_run


def test_a_token_is_the_environments_or_a_new_one_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert link_token() != link_token()
    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", link_token())
    monkeypatch.setenv(TOKEN_VARIABLE, "0123456789abcdef")
    assert link_token() == "0123456789abcdef"


@pytest.mark.parametrize(
    "given", ["", "short", "x" * 15, "x" * 201, "with a space in it", "a&b=c#d?e/f%20g-h", "ä" * 20]
)
def test_a_token_that_is_none_is_refused_by_its_variable(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, given)
    with pytest.raises(ConfigError, match=TOKEN_VARIABLE):
        link_token()


def test_what_is_no_run_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no config\.yaml"):
        run_watch("empty", None, tmp_path, "127.0.0.1", 0, Console())
    with pytest.raises(ConfigError, match="there is no run nowhere in"):
        run_watch("nowhere", None, tmp_path, "127.0.0.1", 0, Console())
    with pytest.raises(ConfigError, match="there is no run under way in"):
        run_watch(None, None, tmp_path, "127.0.0.1", 0, Console())


def test_the_way_to_watch_is_a_line_that_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("socket.gethostname", lambda: "head")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    folder = Path("/data/my runs/kontext")
    assert how_to_watch(folder) == "rc-grpo watch '/data/my runs/kontext'"
    assert how_to_watch(Path("/r"), from_elsewhere=True) == "ssh -t -L 8101:127.0.0.1:8101 head rc-grpo watch /r"
    (tmp_path / "rc-grpo").touch()
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert how_to_watch(Path("/r"), from_elsewhere=True).endswith(f" head {tmp_path}/rc-grpo watch /r")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    line = how_to_watch(Path("/r"), from_elsewhere=True)
    assert line == "kubectl port-forward head 8101 & kubectl exec -it head -- rc-grpo watch /r"


def test_status_says_how_to_watch_in_a_line_that_no_screen_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object) -> NoReturn:
        raise UnreachableError("no Ray cluster answers")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # Whoever else has a cluster on this machine is not asked.
    monkeypatch.setattr(remote, "visit", nowhere)
    folder = write_run(tmp_path / ("a-long-name-" * 8), updates=1, logged=0, finished=False)
    said = io.StringIO()
    show_status(folder.name, None, tmp_path, Console(file=said, width=60))
    assert f"live page: rc-grpo watch {folder}\n" in said.getvalue()
    # Of several that are listed, each has its line and no more.
    write_run(tmp_path / "another", updates=1, logged=0, finished=False)
    said = io.StringIO()
    show_status(None, None, tmp_path, Console(file=said, width=60))
    assert len(said.getvalue().splitlines()) == 2
