"""Inputs that once broke a promise: the target, and what it was given."""

from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_NO_OPTIONS = {"mask_format": "auto", "invert_mask": False, "limit": None}

CORPUS: list[tuple[str, Any]] = [
    # What libavif says of planes that it cannot decode was a RuntimeError.
    ("images", (_HERE / "broken_planes.avif").read_bytes()),
    # Transparency of a palette that is not there was an AssertionError of Pillow's, with no words.
    ("images", (_HERE / "no_palette.png").read_bytes()),
    # A host that is no name in any alphabet ended the judge's opening in a UnicodeError.
    ("judge_answers", ("address", "http://XN--")),
    ("judge_answers", ("address", "\ud83d")),
    ("judge_answers", ("address", "http://xn--a-\u00fc.example/v1")),
    # What a server named as the reason was quoted whole, of whatever type and length.
    *(
        (
            "judge_answers",
            ("completions", f'{{"choices": [{{"message": {{"content": {text}}}, "finish_reason": {why}}}]}}'),
        )
        for text, why in (
            ('"a"', '{"' + "x" * 5000 + '": 1}'),
            ("null", '"' + "x" * 5000 + '"'),
            ("null", "[" * 900 + "]" * 900),
            ('"a"', '"\\ud83d\\u0000"'),
        )
    ),
    # A whole number beyond a float's range was an OverflowError: as an id, and where it stands for a text.
    ("rows", ("compbench", b'[{"image_path": 1' + b"0" * 400 + b', "instruction": "Add a cat"}]', _NO_OPTIONS, b"")),
    (
        "rows",
        (
            "jsonl",
            b'{"source": "source.png", "mask": "mask.png", "instruction": 1' + b"0" * 400 + b"}",
            _NO_OPTIONS,
            b"",
        ),
    ),
    ("rows", ("jsonl", b'{"source": -1' + b"0" * 400 + b', "mask": "mask.png", "instruction": "a"}', _NO_OPTIONS, b"")),
    # A column's name that is no text was a UnicodeDecodeError.
    ("rows", ("parquet", (_HERE / "broken_name.parquet").read_bytes(), _NO_OPTIONS, b"")),
    # The text of a configuration is no name that a file system takes.
    ("configurations", ("x" * 5000, [])),
    ("configurations", ("seed: 1\x00", [])),
    # Of a run's folder: Python's errors from behind the reader, or JSON's without the file's name.
    *(
        ("run_folders", (command, (name, "damaged", data)))
        for command, name, data in (
            ("status", "summary.json", b"[]"),
            ("status", "cluster.json", b'{"address": 1, "namespace": "", "auth": "token"}'),
            ("status", "cluster.json", b"{}"),
            ("replay", "environment.json", b'{"machine": "a desk"}'),
            ("replay", "experience/update-00002.parquet", b"PAR1"),
            ("inspect", "experience/update-00002.parquet", b""),
            ("train --resume", "checkpoints/update-00002/manifest.json", b'{"files": []}'),
            (
                "train --resume",
                "checkpoints/update-00002/manifest.json",
                b'{"update": 2, "version": {"number": 2, "digest": "ab", "modules": 28, "is_identity": false}, '
                b'"ledger": {"except": []}, "training_seconds": 3.5, "files": {}}',
            ),
            ("train --resume", "evaluations/update-00001.json", b'{"tasks": []}'),
            ("train --resume", "metrics.jsonl", b'{"event": "update"}\n'),
            ("train --resume", "data.json", b'{"train": {"origin": "", "tasks": {"a": "0"}}}'),
            ("train --resume", "data.json", b'{"train": null}'),
            ("train --resume", "environment.json", b'{"earlier_starts": {}}'),
            ("train --resume", "lora-best/held_out.json", b"[]"),
        )
    ),
    ("run_folders", ("train --resume", ("evaluations/update-00001.json", "a folder", b""))),
    ("run_folders", ("status", ("cluster.json", "a link to itself", b""))),
    ("run_folders", ("train --resume", ("metrics.jsonl", "a link to itself", b""))),
]
