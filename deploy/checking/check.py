"""``rc-grpo check``: all that can be known without a rollout; and its quick part, with which a training begins."""

from collections.abc import Iterator

from rich.console import Console

from deploy.checking.data import check_data
from deploy.checking.finding import Finding, faults, finding, show
from deploy.checking.judges import check_answers, check_servers
from deploy.checking.machine import check_machine
from deploy.checking.places import check_places
from deploy.evaluating.preflight import check_editor, check_training
from deploy.tracking.trackers import check_trackers
from rc_grpo.config import ConfigError, RunConfig
from rc_grpo.editor.export import check_lora
from rc_grpo.editor.loading import load_architecture
from rc_grpo.editor.registry import find


def check(config: RunConfig, *, start_servers: bool = False) -> Iterator[Finding]:
    """Yield everything that can be known of a run without rolling out, fault after fault.

    Args:
        config: resolved and validated.
        start_servers: as of `deploy.checking.judges.check_answers`.
    """
    editor = finding("editor", lambda: _editor(config))
    yield editor
    if editor.state == "fine":
        yield from check_data(config)
        if config.learner.start_from is not None:
            yield finding("learner.start_from", lambda: _lora(config))
    yield from check_answers(config, start_servers=start_servers)
    yield finding("output.trackers", lambda: _trackers(config))
    if editor.state == "fine":
        yield from check_places(config, begun=False)
        yield from check_machine(config)


def require_ready(config: RunConfig, *, begun: bool) -> None:
    """Refuse to start a run in vain: the quick part of `check`, without a question to a judge.

    The data are not read here; the run reads them next, and refuses them itself.

    Args:
        config: resolved and validated.
        begun: the run's folder is there already, to go on in.

    Raises:
        TrackerError, ValueError, JudgeSetupError: as `deploy.evaluating.preflight.check_training`.
        ConfigError: naming everything else that is in the way.
    """
    check_training(config)
    found = [*check_places(config, begun=begun), *check_servers(config)]
    if wrong := [f"{item.subject}: {item.said}" for item in faults(found)]:
        raise ConfigError("; ".join(wrong))


def show_check(config: RunConfig, console: Console, *, machine_readable: bool, start_servers: bool = False) -> bool:
    """Print what `check` finds, as a table or as JSON; tell whether nothing is in the way."""
    with console.status("looking ..."):
        found = list(check(config, start_servers=start_servers))
    return show(found, console, machine_readable=machine_readable)


def _editor(config: RunConfig) -> str:
    check_editor(config)
    family, size = find(config.editor), load_architecture(config.editor)
    tokens = size.tokens(config.editor)
    return (
        f"{config.editor.model} of the family {family.name}: {size.parameters / 1e9:.3g} billion parameters, "
        f"{tokens.target} tokens of an image at {config.editor.resolution} x {config.editor.resolution}"
        + (f", up to {tokens.sources} of {tokens.images} sources" if tokens.images > 1 else "")
    )


def _lora(config: RunConfig) -> str:
    assert config.learner.start_from is not None
    check_lora(config.editor, config.learner.start_from)
    return f"{config.learner.start_from} fits the editor by names and shapes"


def _trackers(config: RunConfig) -> str:
    check_trackers(config.output)
    return ", ".join(config.output.trackers) or "none beside TensorBoard"
