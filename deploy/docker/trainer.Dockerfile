# syntax=docker/dockerfile:1
# Head, rollout and learner nodes: docker build -f deploy/docker/trainer.Dockerfile -t rc-grpo/trainer:0.1.0 .
# torch's wheels bring the CUDA libraries, and the driver comes from the node, so the base is the Python that is tested.
# Name a digest to build twice the same: --build-arg BASE=python@sha256:...
ARG BASE=python:3.11.13-slim-bookworm
FROM ${BASE}

# gcc and g++: Triton and torch.compile build their launchers at run time. wget: older KubeRay probes with it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ libc6-dev tini wget \
    && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /opt/rc-grpo
COPY deploy/docker/constraints.py requirements/cpu.txt ./
RUN python constraints.py cpu.txt > constraints.txt
# First what changes seldom and is large, so that a change of our own code does not send it again.
COPY pyproject.toml ./
RUN python constraints.py --requirements trainer pyproject.toml > requirements.txt \
    && pip install -c constraints.txt -r requirements.txt
COPY README.md LICENSE ./
COPY rc_grpo rc_grpo
COPY rollout_workers rollout_workers
COPY reward_service reward_service
COPY learner learner
COPY deploy deploy
RUN pip install --no-deps . \
    && cp deploy/docker/prestop.py . \
    && useradd --create-home --uid 1000 ray

USER 1000
WORKDIR /home/ray
ENTRYPOINT ["tini", "-g", "--"]
CMD ["python", "-m", "deploy.train", "--help"]
