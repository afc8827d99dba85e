"""How a transformer holds the LoRA weights that are its policy: as PEFT adapters that train, or merged to run fast."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from rc_grpo.config import LoraSettings
from rc_grpo.editor import lora


class Policy(Protocol):
    """The trained weights inside a model."""

    modules: int
    """Number of modules that the weights are bound to."""

    @property
    def changes(self) -> int:
        """A count that grows whenever the weights change: what was computed at another count is stale."""
        ...

    @property
    def acting(self) -> bool:
        """The policy acts, not the base model inside `disabled`."""
        ...

    def weights(self) -> Mapping[str, Tensor]:
        """Return the weights themselves, where they are, in canonical order; those that train are float32."""
        ...

    def load(self, weights: Mapping[str, Tensor]) -> int:
        """Replace all weights or none, and return the number of modules.

        Raises:
            rc_grpo.messages.VersionMismatchError: names or shapes differ from the model's.
        """
        ...

    def digest(self) -> str:
        """Return the digest of the weights that are in the model."""
        ...

    def base(self) -> Mapping[str, Tensor]:
        """Return the base model's weights ``[out, in]`` of the adapted projections by full name, without the LoRA."""
        ...

    def disabled(self) -> AbstractContextManager[None]:
        """Run the base model inside the context."""
        ...


class AdapterPolicy:
    """PEFT's LoRA layers around the projections: what the learner trains.

    Args:
        transformer: gets the layers, and is frozen otherwise.
        expected: the projections that are to get one, see `rc_grpo.editor.lora.adapted`.
        settings: rank, scale and targets.
        seed: of the first weights.
    """

    def __init__(self, transformer: nn.Module, expected: lora.Shapes, settings: LoraSettings, seed: int) -> None:
        self._transformer = transformer
        self._wrapped = lora.attach(transformer, expected, settings, seed)
        self.modules = len(self._wrapped)
        self._travelled = torch.float32
        self._trained = tuple(lora.parameters(transformer).values())
        self.acting = True

    @property
    def changes(self) -> int:
        """A count that grows with every writing into the parameters: an optimiser's step, too."""
        return sum(weight._version for weight in self._trained)

    def weights(self) -> Mapping[str, Tensor]:
        """Return the trained parameters."""
        return lora.parameters(self._transformer)

    def load(self, weights: Mapping[str, Tensor]) -> int:
        """Copy weights into the layers."""
        modules = lora.load(self._transformer, weights)
        self._travelled = next(iter(weights.values())).dtype
        return modules

    def digest(self) -> str:
        """Return the digest of the parameters, in the precision that they came in."""
        return lora.digest(lora.rounded(self.weights(), self._travelled))

    def base(self) -> Mapping[str, Tensor]:
        """Return the weights that the layers are around."""
        return {name: torch.as_tensor(module.weight).detach() for name, module in self._wrapped.items()}

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Switch the layers off inside the context."""
        with lora.disabled(self._transformer):
            self.acting = False
            try:
                yield
            finally:
                self.acting = True
