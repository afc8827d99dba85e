"""A study on the disk: what it compares, and the secret that its blindness rests on."""

import secrets
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from deploy.study.examples import Material
from rc_grpo.durable import write_whole

MANIFEST, VOTES, LOCK = "study.json", "votes.jsonl", ".lock"


class Manifest(BaseModel):
    """What all votes of a study's folder are about.

    Attributes:
        secret: orders, picture names and the link's token are functions of it; without it nobody can tell them.
        tasks: the benchmark, for people.
        models: those compared, sorted.
        examples: task -> digest of all that a trial of it shows.
        left_out: task and reason, for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    secret: str
    tasks: str
    models: tuple[str, ...]
    examples: dict[str, str]
    left_out: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, material: Material, secret: str | None = None) -> "Manifest":
        """Describe a new study; its secret is drawn if not given."""
        return cls(
            secret=secret or secrets.token_hex(32),
            tasks=str(material.benchmark.path),
            models=tuple(sorted(material.examples[0].edits)),
            examples={example.task_id: example.digest for example in material.examples},
            left_out=material.left_out,
        )

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read a study's folder.

        Raises:
            ValueError: it is none, or its file is broken.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise ValueError(
                f"{folder} is no study's folder: no {MANIFEST}; rc-grpo study serve --out {folder} makes it"
            )
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ValueError(f"{path} is not what rc-grpo study serve wrote ({error}); restore it") from error

    @classmethod
    def found(cls, folder: Path, material: Material) -> "Manifest":
        """Go on with the study of a folder, or begin one there.

        Raises:
            ValueError: the folder's study is of other models, examples or pictures; its votes are about those.
        """
        new = cls.of(material)
        if not (folder / MANIFEST).is_file():
            write_whole(folder / MANIFEST, new.model_dump_json(indent=1))
            (folder / MANIFEST).chmod(0o600)
            return new
        there = cls.read(folder)
        if difference := there.difference(new):
            raise ValueError(
                f"{folder} holds a study of something else ({difference}); its votes are about that. Name another "
                "--out, or restore what it was begun with"
            )
        return there

    def difference(self, other: "Manifest") -> str:
        """Say in what another study shows something else; empty if it does not."""
        if self.models != other.models:
            return f"models {', '.join(self.models)} there, {', '.join(other.models)} now"
        if gone := self.examples.keys() - other.examples.keys():
            return f"{len(gone)} of its examples are gone, such as {min(gone)}"
        if new := other.examples.keys() - self.examples.keys():
            return f"{len(new)} examples are new, such as {min(new)}"
        if changed := [name for name, digest in self.examples.items() if other.examples[name] != digest]:
            return f"pictures or instructions of {len(changed)} examples have changed, such as {min(changed)}"
        return ""
