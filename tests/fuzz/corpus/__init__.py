"""Inputs that once broke a promise: the target, and what it was given."""

from typing import Any

_NO_OPTIONS = {"mask_format": "auto", "invert_mask": False, "limit": None}

CORPUS: list[tuple[str, Any]] = [
    # A host that is no name in any alphabet ended the judge's opening in a UnicodeError.
    ("judge_answers", ("address", "http://XN--")),
    ("judge_answers", ("address", "\ud83d")),
    ("judge_answers", ("address", "http://xn--a-\u00fc.example/v1")),
    # A whole number beyond a float's range was an OverflowError: as an id, and where it stands for a text.
    ("rows", ("compbench", b'[{"image_path": 1' + b"0" * 400 + b', "instruction": "Add a cat"}]', _NO_OPTIONS, b"")),
    ("rows", ("jsonl", b'{"source": "source.png", "mask": "mask.png", "instruction": 1' + b"0" * 400 + b"}", _NO_OPTIONS, b"")),
    ("rows", ("jsonl", b'{"source": -1' + b"0" * 400 + b', "mask": "mask.png", "instruction": "a"}', _NO_OPTIONS, b"")),
]
