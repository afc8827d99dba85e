"""From a configuration to a judge."""

import os
from pathlib import Path
from typing import get_args

from transformers import AutoConfig

from rc_grpo.config import AnyJudgeConfig, EditScoreConfig, JudgePlugin, PairwiseConfig, ServedConfig
from rc_grpo.storable import one_line
from reward_service import pocket_judge
from reward_service.asking.transport import QUOTED_CHARACTERS
from reward_service.editscore import EditScoreJudge
from reward_service.folders.judge_folder import check_judge_folder
from reward_service.judge import Judge, JudgeSetupError
from reward_service.local.making import check_local, make_local
from reward_service.logits import questions
from reward_service.logits.judge import LogitsJudge
from reward_service.logits.questions import DigitQuestions
from reward_service.pairwise import question
from reward_service.pairwise.judge import PairwiseJudge
from reward_service.prompts import DEFAULT_PROMPTS, Family, Prompts
from reward_service.prompts.published import published_prompts
from reward_service.serving.endpoint import AttachedServer, Endpoint
from reward_service.vllm_server import VllmServer

POCKET = "pocket"


def make_judge(worker: str, config: AnyJudgeConfig, logs: Path, attach: tuple[str, str] | None = None) -> Judge:
    """Return the judge that the configuration describes.

    Args:
        worker: name of the actor it works in.
        config: of the judge.
        logs: folder for the log of a server that is started.
        attach: address and key of a server to use instead of starting one.

    Raises:
        JudgeSetupError: what it needs is not there, or a judge of another package is not made.
    """
    match config:
        case EditScoreConfig():
            endpoint = _endpoint(worker, config, logs, attach, images=2)
            if config.scoring == "logits":
                return LogitsJudge(config, endpoint, digit_questions(config), family(config))
            return EditScoreJudge(config, endpoint, prompts(config), family(config))
        case PairwiseConfig():
            endpoint = _endpoint(worker, config, logs, attach, images=3)
            return PairwiseJudge(config, endpoint, pair_question(config))
        case JudgePlugin():
            return _made(config)
        case _:
            return make_local(config)


def check_judge(name: str, config: AnyJudgeConfig) -> None:
    """Check what can be checked of a judge without a server, before anything is started.

    Raises:
        JudgeSetupError: its model or family is not to be found, or the key of its servers is not set.
        JudgeFolderError: the model's folder is not whole.
        PromptError: its prompt file cannot be used.
    """
    match config:
        case JudgePlugin():
            _check_plugin(name, config)
        case EditScoreConfig():
            digit_questions(config) if config.scoring == "logits" else prompts(config)
            family(config)
            _check_served(name, config)
        case PairwiseConfig():
            pair_question(config)
            if not config.urls:
                _model_type(config, "give it urls")
            _check_served(name, config)
        case _:
            check_local(config)


def prompts(config: EditScoreConfig) -> Prompts:
    """Return the questions: those the configuration names, those a packaged judge was trained with, or ours.

    Raises:
        PromptError: they cannot be used; or the published ones are meant, and their package is not installed.
    """
    if config.prompts == "editscore":
        return published_prompts()
    default = pocket_judge.PROMPTS_PATH if config.model == POCKET else DEFAULT_PROMPTS
    return Prompts.load(Path(config.prompts or default))


def digit_questions(config: EditScoreConfig) -> DigitQuestions:
    """Return the questions whose marks are read from one token: those that the configuration names, or ours.

    Raises:
        PromptError: they cannot be used.
    """
    return DigitQuestions.load(config.logits.prompts or questions.DEFAULT)


def pair_question(config: PairwiseConfig) -> question.PairQuestion:
    """Return what is asked of two edits: the question that the configuration names, or ours.

    Raises:
        PromptError: it cannot be used.
    """
    return question.PairQuestion.load(config.prompts or question.DEFAULT)


def family(config: EditScoreConfig) -> Family:
    """Return how the judge's family introduces images, read from the model's own config.json unless it is configured.

    Raises:
        JudgeSetupError: that names no family known here, or cannot be read.
    """
    if config.family != "auto":
        return config.family
    kind = _model_type(config, f"set family to one of {get_args(Family)}")
    if kind not in get_args(Family):
        raise JudgeSetupError(f"judge {config.model!r} is a {kind}, not one of {get_args(Family)}; set family")
    return kind  # type: ignore[return-value]


def model(config: ServedConfig) -> str:
    """Return the folder or hub id to serve."""
    return str(pocket_judge.MODEL_PATH) if config.model == POCKET else config.model


def _model_type(config: ServedConfig, otherwise: str) -> str:
    try:
        return str(AutoConfig.from_pretrained(model(config)).model_type)
    except (OSError, ValueError) as error:
        raise JudgeSetupError(
            f"judge {config.model!r} is neither a folder here nor a model that the hub gives. Merge one with "
            f"`rc-grpo merge-judge BASE ADAPTER {config.model}`; or, if only other nodes see it, {otherwise} ({error})"
        ) from error


def _check_served(name: str, config: ServedConfig) -> None:
    if config.urls and config.api_key_variable not in os.environ:
        raise JudgeSetupError(f"judge {name} has urls; set ${config.api_key_variable} to their key")
    folder = Path(model(config))
    if not config.urls and folder.is_dir():
        check_judge_folder(folder)
        # Told to load otherwise, as without weights, a server knows better.
        if not any(argument.startswith("--load-format") for argument in config.server.arguments):
            # Here, as it takes seconds, and a worker that attaches to a server has no need of it.
            from reward_service.folders.tensors import require_judge

            require_judge(folder)


def _made(config: JudgePlugin) -> Judge:
    try:
        judge = config.make()
    except JudgeSetupError:
        raise
    except Exception as error:
        # Another's code may raise anything: without a judge, no score can succeed.
        raise JudgeSetupError(f"the judge of kind {config.kind!r} is not made: {_gist(error)}") from error
    if not (isinstance(getattr(judge, "name", None), str) and callable(getattr(judge, "score", None))):
        raise JudgeSetupError(
            f"`make` of the judge of kind {config.kind!r} returned a {type(judge).__name__} without name and score"
        )
    return judge  # type: ignore[no-any-return]


def _check_plugin(name: str, config: JudgePlugin) -> None:
    try:
        config.check()
    except (ValueError, JudgeSetupError) as error:
        raise JudgeSetupError(f"judge {name}: {error}") from error
    except Exception as error:
        # As above.
        raise JudgeSetupError(f"judge {name}: the check of kind {config.kind!r} failed: {_gist(error)}") from error


def _gist(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}", QUOTED_CHARACTERS)


def _endpoint(
    worker: str, config: ServedConfig, logs: Path, attach: tuple[str, str] | None, *, images: int
) -> Endpoint:
    if attach is not None:
        return AttachedServer(*attach, config.server)
    source = model(config)
    if Path(source).is_dir():
        check_judge_folder(Path(source))
    on_gpu = config.resources.num_gpus > 0
    return VllmServer(worker, source, config.model, config.server, logs, on_gpu=on_gpu, images=images)
