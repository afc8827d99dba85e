"""Edit tasks in, experience out: data sets of every supported format as `EditTask`s, scored groups as parquet."""

from rc_grpo.data.errors import DataError
from rc_grpo.data.experience import read_experience, write_experience
from rc_grpo.data.load import load_tasks
from rc_grpo.data.tasks import Refusal, TaskSet

__all__ = ["DataError", "Refusal", "TaskSet", "load_tasks", "read_experience", "write_experience"]
