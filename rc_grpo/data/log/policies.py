"""Policies kept: the weights of a run's versions as files, so that a rollout can be made again under what it ran on."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rc_grpo.durable import write_whole
from rc_grpo.editor import lora
from rc_grpo.messages import PolicyVersion, VersionMismatchError

_DIGEST_SHOWN = 12
_NAME = re.compile(rf"v(\d{{5,}})-([0-9a-f]{{{_DIGEST_SHOWN}}})\.safetensors")
_KEPT_NAMED = 20


class PolicyNotKeptError(ValueError):
    """A version is asked for that the folder does not hold; the message names those that it does."""


class PolicyAlteredError(ValueError):
    """A file's weights are not those of the version that its name claims."""


@dataclass(frozen=True, order=True)
class KeptPolicy:
    """A version whose weights are there.

    Attributes:
        number: count of updates behind the weights.
        digest: the first 12 hexadecimal digits of the weights' digest.
        path: the file.
    """

    number: int
    digest: str
    path: Path

    def __str__(self) -> str:
        return f"v{self.number}:{self.digest[:8]}"


class PolicyStore:
    """A folder of safetensors, one file a version, found by number and digest.

    A run that was rolled back makes its versions again. Equal weights then replace their equals; other weights of the
    same number (asynchronous training) have another digest, hence another file, and both stay.

    Args:
        folder: made when the first version is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, version: PolicyVersion, weights: bytes | NDArray[np.uint8]) -> Path:
        """Write a version's safetensors bytes; the file appears whole or not at all, also if the machine goes down.

        Returns:
            The file.
        """
        path = self._folder / f"v{version.number:05d}-{version.digest[:_DIGEST_SHOWN]}.safetensors"
        write_whole(path, weights if isinstance(weights, bytes) else weights.data)
        return path

    def load(self, number: int, digest: str) -> bytes:
        """Return the safetensors bytes of a version, after its digest was taken again.

        Args:
            number: of the version.
            digest: of its weights, whole.

        Raises:
            PolicyNotKeptError: there is no file of that number and digest.
            PolicyAlteredError: there is one, and its weights are others.
        """
        kept = self.kept()
        found = [policy for policy in kept if policy.number == number and policy.digest == digest[:_DIGEST_SHOWN]]
        if not found:
            raise PolicyNotKeptError(self._not_kept(number, digest, kept))
        try:
            data = found[0].path.read_bytes()
            actual = lora.digest(lora.deserialise(data))
        except (VersionMismatchError, OSError) as error:
            raise PolicyAlteredError(f"{found[0].path} is damaged: {error}") from error
        if actual != digest:
            raise PolicyAlteredError(
                f"{found[0].path} was altered: its weights have digest {actual[:_DIGEST_SHOWN]}, not "
                f"{digest[:_DIGEST_SHOWN]}; nothing that is made with them would be a replay"
            )
        return data

    def kept(self) -> tuple[KeptPolicy, ...]:
        """Return the versions that are there, by number."""
        names = [(_NAME.fullmatch(path.name), path) for path in self._folder.glob("v*.safetensors")]
        return tuple(sorted(KeptPolicy(int(name[1]), name[2], path) for name, path in names if name))

    def _not_kept(self, number: int, digest: str, kept: tuple[KeptPolicy, ...]) -> str:
        wanted = f"policy v{number}:{digest[:8]} is not kept in {self._folder}"
        others = [policy for policy in kept if policy.number == number]
        if others:
            named = ", ".join(map(str, others))
            return f"{wanted}; kept is {named}: the run was rolled back, and its version {number} is another one now"
        named = ", ".join(map(str, kept[-_KEPT_NAMED:])) or "no version at all"
        earlier = f" and {len(kept) - _KEPT_NAMED} earlier ones" if len(kept) > _KEPT_NAMED else ""
        return f"{wanted}; kept are {named}{earlier}. `output.policies: all` keeps every version of a run"
