"""Who sees what in which order, and under which names: functions of the study's secret, so that a restart changes none.

A picture is named by a keyed digest of what it is. The name is the same for everybody, which lets browsers keep
pictures, and says nothing about the model: the names of one model's pictures have nothing in common.
"""

import hashlib
import hmac
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.study.examples import Example, Material
from deploy.study.manifest import Manifest
from rc_grpo.seeds import derive

SOURCE, REGION = "source", "region"
NAME_LENGTH = 32


def edit_of(model: str) -> str:
    """Return what a model's edit is called among an example's pictures; no model's name can be ``source``."""
    return f"edit/{model}"


@dataclass(frozen=True)
class Trial:
    """One question to one participant.

    Attributes:
        name: opaque.
        example: what it is about.
        shown: the models, in the order in which this participant sees their edits.
    """

    name: str
    example: Example
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Blinding:
    """Translates between what is known here and what a participant may know.

    Attributes:
        manifest: has the secret.
        material: has the examples.
        pictures: opaque name -> example and which of its pictures.
    """

    manifest: Manifest
    material: Material
    pictures: Mapping[str, tuple[Example, str]] = field(init=False)

    def __post_init__(self) -> None:
        parts = (SOURCE, REGION, *map(edit_of, self.manifest.models))
        pictures = {self.picture(ex, part): (ex, part) for ex in self.material.examples for part in parts}
        object.__setattr__(self, "pictures", pictures)

    def picture(self, example: Example, part: str) -> str:
        """Return the opaque name of `SOURCE`, `REGION` or `edit_of` a model."""
        return self._name("picture", example.task_id, part)

    @property
    def token(self) -> str:
        """What the link holds where the page can be reached from other machines."""
        return self._name("token")

    @property
    def study(self) -> str:
        """Name of this study among those of one host, whose ports share their cookies."""
        return self._name("study")[:8]

    def trials(self, participant: str) -> tuple[Trial, ...]:
        """Return all trials in the order in which a participant meets them; everybody has another one.

        Any order that all share would tie how tired a participant is to the example.
        """
        examples = list(self.material.examples)
        random.Random(derive(self.manifest.secret, "trials", participant)).shuffle(examples)
        return tuple(self._trial(participant, example) for example in examples)

    def _trial(self, participant: str, example: Example) -> Trial:
        models = list(self.manifest.models)
        random.Random(derive(self.manifest.secret, "order", participant, example.task_id)).shuffle(models)
        return Trial(self._name("trial", example.task_id), example, tuple(models))

    def _name(self, *path: str) -> str:
        # Lengths are hashed too: "a", "bc" and "ab", "c" are different things.
        message = "".join(f"{len(part)}:{part}" for part in path)
        return hmac.new(self.manifest.secret.encode(), message.encode(), hashlib.sha256).hexdigest()[:NAME_LENGTH]
