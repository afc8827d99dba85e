"""The process that talks to a run's control actor for `deploy.watch.line`: a question a line, an answer a line.

A process that has joined a Ray cluster is ended by Ray when that cluster goes away, and can join but one. A page that
outlives its run, and sees it begin again on another cluster, keeps out of that.
"""

import json
import os
import sys
from pathlib import Path

import ray
from ray.exceptions import RayError

from deploy.watching.asking import ANSWER_DEADLINE_S
from deploy.watching.remote import control_of
from rc_grpo.config import ConfigError

VERBS = ("status", "scale", "stop")


def main(folder: str, address: str) -> None:
    """Answer ``[VERB, ARGUMENT...]`` from stdin with ``{"answer": ...}``; say ``{"error": ...}`` once, and end.

    Args:
        folder: of the run.
        address: of its cluster; empty for what the folder says.
    """
    # Whatever Ray and its libraries print is none of the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        with control_of(folder, address or None, Path(folder).parent) as control:
            for question in sys.stdin:
                verb, *arguments = json.loads(question)
                if verb not in VERBS:
                    raise ValueError(f"{verb} is none of {', '.join(VERBS)}")
                said = ray.get(getattr(control, verb).remote(*arguments), timeout=ANSWER_DEADLINE_S)
                answers.write(json.dumps({"answer": said}) + "\n")
    except (ConfigError, RayError, ConnectionError, RuntimeError, TimeoutError) as error:
        answers.write(json.dumps({"error": " ".join(str(error).split())[:300]}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
