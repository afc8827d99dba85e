"""What a judge says where the CLIP model or the processor that its configuration names is not to be had."""

from collections.abc import Iterator
from contextlib import contextmanager

from rc_grpo.config import ClipDirectionConfig, PickScoreConfig
from rc_grpo.evaluation.clip import ClipUnavailableError
from reward_service.judge import JudgeSetupError


@contextmanager
def clip_of(config: ClipDirectionConfig | PickScoreConfig) -> Iterator[None]:
    """Load a judge's CLIP inside, so that its absence is the judge's error.

    Raises:
        JudgeSetupError: the block raised `ClipUnavailableError`; names the judge and its options.
    """
    options = "model and processor" if isinstance(config, PickScoreConfig) else "model"
    try:
        yield
    except ClipUnavailableError as error:
        raise JudgeSetupError(f"a judge of kind {config.kind} ({options} in its configuration): {error}") from error
