"""A file is there whole or as it was before, whenever the process that writes it is killed."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rc_grpo.durable import write_whole

MEGABYTE = 2**20
WRITER = f"""
import sys
from pathlib import Path
from rc_grpo.durable import write_whole

print("writes", flush=True)
while True:
    for letter in "ab":
        write_whole(Path(sys.argv[1]), letter * {4 * MEGABYTE})
"""


def test_a_writer_that_is_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_whole(path, "a" * 4 * MEGABYTE)
    for milliseconds in range(0, 50, 7):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writes\n"
        time.sleep(milliseconds / 1000)
        writer.kill()
        writer.communicate()
        assert path.read_text() in ("a" * 4 * MEGABYTE, "b" * 4 * MEGABYTE)
    write_whole(path, b"last")
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_disk_that_is_full_costs_nothing_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "config.yaml"
    write_whole(path, "seed: 1\n")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "seed: 2\n")
    assert path.read_text() == "seed: 1\n"
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("data", ["é", "é".encode(), memoryview("é".encode())])
def test_text_and_bytes_are_written_as_they_are(data: str | bytes | memoryview, tmp_path: Path) -> None:
    write_whole(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == "é".encode()
