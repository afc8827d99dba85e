"""The weights by name, and the proof that they act."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PolicyVersion:
    """The name of one set of LoRA weights, and what a worker must find when it has applied them.

    Attributes:
        number: count of the run's updates behind these weights; 0 is what it begins with.
        digest: SHA-256 (hex) over the LoRA tensors in canonical order, see `rc_grpo.editor.lora.digest`.
        modules: number of modules the weights must bind to.
        is_identity: every LoRA product is zero, so that the outputs must equal the base model's: an untrained LoRA.
    """

    number: int
    digest: str
    modules: int
    is_identity: bool

    def __str__(self) -> str:
        return f"v{self.number}:{self.digest[:8]}"


@dataclass(frozen=True)
class VersionProof:
    """What a worker reports after applying a version (rule 1 of the design): counted, digested, and seen to act.

    Attributes:
        worker: who reports.
        version: the number that was applied.
        modules: LoRA modules whose weights were replaced.
        digest: digest recomputed from the weights now in the model.
        canary_shift: largest absolute change of the canary's velocity between LoRA off and on.
    """

    worker: str
    version: int
    modules: int
    digest: str
    canary_shift: float


class VersionMismatchError(RuntimeError):
    """Weights were sent and did not arrive as sent; the worker must not be given work."""
