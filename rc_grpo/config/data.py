"""Where edit tasks come from."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from rc_grpo.config.base import Strict


class TaskSource(Strict):
    """Where edit tasks are read from."""

    format: Literal["pocket", "parquet", "jsonl", "compbench"] = Field(description="how the tasks are stored")
    path: Path | None = Field(
        None,
        description="file, folder or, of parquet, a pattern such as `/data/train-*.parquet`; not for `pocket`",
    )
    split: Literal["train", "heldout"] = Field("train", description="of the pocket world")
    limit: PositiveInt | None = Field(None, description="use only the first so many tasks")
    columns: dict[str, str] = Field(default_factory=dict, description="our field name -> column name in the file")
    invert_mask: bool = Field(False, description="black, or opaque, is where to edit")
    mask_format: Literal["auto", "image", "alpha", "rle"] = Field(
        "auto", description="how a mask is written; `alpha` means that transparent pixels are where to edit"
    )
    on_bad_task: Literal["fail", "skip"] = Field("fail", description="`skip` leaves unusable tasks out and lists them")
    allow_benchmark: bool = Field(False, description="train on CompBench all the same; lands in the run's metadata")

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if (self.path is None) != (self.format == "pocket"):
            raise ValueError(f"format {self.format!r} {'takes no' if self.path else 'needs a'} path")
        return self


class DataConfig(Strict):
    """Training and held-out tasks."""

    train: TaskSource
    heldout: TaskSource | None = None
