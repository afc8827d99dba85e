"""The pocket judge: a small model of Qwen2.5-VL's architecture, trained to judge the pocket world's edits.

It answers EditScore's questions (`reward_service.contract`) as a stock vLLM server serves it, at seven million
parameters. `reward_service.pocket_judge.train` made the weights.
"""

from pathlib import Path

MODEL_PATH: Path = Path(__file__).parent / "model"
"""Folder of the trained judge, in Hugging Face's layout."""

PROMPTS_PATH: Path = Path(__file__).parent / "prompts.yaml"
"""The words it was trained with; with others it is another, untrained judge."""
