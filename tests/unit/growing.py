"""An editor whose velocity is the state itself: every solver's states are known, and it notes what it is asked."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from rc_grpo.images import encode_png
from rc_grpo.messages import Conditions, EditTask, PolicyVersion, VersionProof

HEIGHT, WIDTH, TOKEN, TOKENS, CHANNELS = 32, 48, 16, 6, 2
VERSION = PolicyVersion(3, "d" * 64, 1, is_identity=False)


class Field:
    """A velocity that has nothing to compute ahead."""

    def __init__(self, of: Callable[[Tensor, float], Tensor]) -> None:
        self._of = of

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self._of(x, sigma)

    def held(self) -> AbstractContextManager[None]:
        return nullcontext()


def a_task(task_id: str = "t") -> EditTask:
    """A task of twice the size that `Growing` edits at; its mask covers half of the first token."""
    mask = np.zeros((2 * HEIGHT, 2 * WIDTH), dtype=np.uint8)
    mask[:32, :16] = 255
    source = np.full((2 * HEIGHT, 2 * WIDTH, 3), 51, dtype=np.uint8)
    return EditTask(task_id, "add", encode_png(source), "add a cat", encode_png(mask))


class Growing:
    """Six tokens of two channels, ``dx/dsigma = x``. Its weight wants a gradient, as an adapter's would."""

    token = TOKEN
    device = torch.device("cpu")
    layers = 4

    def __init__(self) -> None:
        self.weight = torch.ones((), requires_grad=True)
        self.recorded: list[tuple[tuple[int, ...], list[bool], list[bool]]] = []
        self.encoded: list[str] = []
        self.decoded: list[Tensor] = []
        self.adopted: list[tuple[PolicyVersion, bytes, str]] = []
        self.refuses = False
        self.policy = SimpleNamespace(weights=lambda: {"p.lora_A.weight": self.weight[None], "p.lora_B.weight": ZERO})

    def encode(self, task: EditTask) -> Conditions:
        self.encoded.append(task.task_id)
        return Conditions(
            height=HEIGHT,
            width=WIDTH,
            arrays={"prompt": np.zeros((4, 5), dtype=np.float32), "pooled": np.zeros(7, dtype=np.float32)},
            text_valid=np.array([True, True, True, False]),
        )

    def latent_shape(self, conditions: Conditions) -> tuple[int, int]:
        return TOKENS, CHANNELS

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)

    def velocity(self, conditions: Conditions, guidance: float | None = None) -> "Field":
        return Field(lambda x, sigma: self.weight * x)

    @contextmanager
    def recording(
        self, layers: tuple[int, ...], token_mask: Tensor, counted: Tensor, direction: str
    ) -> Iterator[SimpleNamespace]:
        assert direction == "from_text"
        self.recorded.append((layers, token_mask.tolist(), counted.tolist()))
        yield SimpleNamespace(density=torch.full((3, len(layers), 4), 0.5))

    def decode(self, latents: Tensor, conditions: Conditions) -> np.ndarray:
        self.decoded.append(latents)
        return np.stack([np.full((HEIGHT, WIDTH, 3), 51 + 10 * i, dtype=np.uint8) for i in range(len(latents))])

    def adopt(self, version: PolicyVersion, weights: np.ndarray, *, worker: str) -> VersionProof:
        self.adopted.append((version, bytes(weights), worker))
        if self.refuses:
            raise RuntimeError("cut off on the way")
        return VersionProof(worker, version.number, version.modules, version.digest, 0.5)


ZERO = torch.zeros(1, 1)
