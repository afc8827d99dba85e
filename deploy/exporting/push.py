"""An exported folder to the Hugging Face Hub."""

import os
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from rc_grpo.config import ConfigError

TOKEN = "HF_TOKEN"


def check_push(repository: str) -> str:
    """Check that a folder may be sent, as far as that is known without the Hub, and return the token.

    Raises:
        ConfigError: the name is none, or there is no token.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"--push {repository!r}: {error}") from error
    if repository.count("/") != 1:
        raise ConfigError(f"--push {repository}: name it as ORG/NAME")
    if not (token := os.environ.get(TOKEN, "").strip()):
        raise ConfigError(f"--push needs {TOKEN} in the environment: a token that may write to {repository}")
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("--push needs the Hub, and HF_HUB_OFFLINE is set")
    return token


def push(folder: Path, repository: str, token: str, message: str, *, public: bool) -> str:
    """Make a repository, private unless it is to be public or is there already, and send a folder in one commit.

    Args:
        folder: all of it is sent.
        repository: ``ORG/NAME``.
        token: that may write there.
        message: of the commit.
        public: who may read it.

    Returns:
        The commit's id.

    Raises:
        ValueError: the Hub cannot be reached, or refuses; the folder stays.
    """
    api = HfApi(token=token, library_name="rc-grpo")
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message).oid)
    except (OSError, HTTPError) as error:
        raise ValueError(f"{repository} could not be written at {api.endpoint}: {error}; {folder} is whole") from error
