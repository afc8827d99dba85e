"""Edit tasks in, experience out: data sets of every supported format as `EditTask`s, scored groups as parquet."""

from rc_grpo.data.errors import DataError
from rc_grpo.data.load import faults, load_tasks, survey
from rc_grpo.data.log.experience import read_experience, write_experience
from rc_grpo.data.refusals import Refusal
from rc_grpo.data.tasks import TaskSet

__all__ = ["DataError", "Refusal", "TaskSet", "faults", "load_tasks", "read_experience", "survey", "write_experience"]
