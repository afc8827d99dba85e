"""The configuration of a run, branch by branch."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from rc_grpo.config.base import Seconds, Strict
from rc_grpo.config.data import DataConfig
from rc_grpo.config.editor import EditorConfig
from rc_grpo.config.guards import GuardConfig
from rc_grpo.config.learner import LearnerConfig
from rc_grpo.config.objective import ObjectiveConfig
from rc_grpo.config.reward import RewardConfig
from rc_grpo.config.rollout import RolloutConfig

Tracker = Literal["wandb", "mlflow", "swanlab", "trackio"]
MOST_GROUPS = 10**7


class LoopConfig(Strict):
    """The pace of the run."""

    updates: PositiveInt = Field(100, description="after which the run ends")
    groups_per_update: PositiveInt = Field(24, description="groups in a batch, one task each")
    refills: int = Field(
        2,
        ge=0,
        le=100,
        description="groups that may be made in the place of one that nothing can be learned from (scores failed or "
        "tied), until a batch is full; 0 takes every batch as it comes",
    )
    max_staleness: int = Field(
        0, ge=0, description="0 is synchronous; n lets groups be n versions old when learned from"
    )
    learn: bool = Field(True, description="false: roll out and score under the untrained policy alone, for the log")
    feed: Path | None = Field(
        None, description="folder of an earlier run to learn from, update by update, instead of rolling out"
    )
    stop_deadline_s: Seconds = Field(
        120.0, description="after SIGTERM: finish the update under way, write a checkpoint and end within so long"
    )

    @model_validator(mode="after")
    def _plan_fits_in_memory(self) -> Self:
        if self.updates * self.groups_per_update > MOST_GROUPS:
            raise ValueError(
                f"updates = {self.updates} of groups_per_update = {self.groups_per_update} are more than {MOST_GROUPS} "
                "groups, and a run plans each of them; start the next run from this one's LoRA (learner.start_from)"
            )
        return self


class EvaluationConfig(Strict):
    """Held-out reward, measured without perturbation before, during and after training."""

    tasks: int = Field(300, ge=0, description="held-out tasks; 0 turns evaluation off")
    steps: PositiveInt = Field(28, description="of the ODE when evaluating")
    guidance: PositiveFloat | None = Field(
        None,
        le=1000,
        description="when evaluating: a model may train without its second pass and be judged with it; none: "
        "editor.guidance",
    )
    every: PositiveInt | None = Field(None, description="also every so many updates")
    measured_by: str | None = Field(
        None,
        description="a judge of the run, of weight 0 as a rule, by which `lora-best/` is chosen and "
        "guards.falling_evaluations looks: one that is not learned from is not hacked; none: the held-out task reward",
    )


class OutputConfig(Strict):
    """What a run leaves in its folder."""

    root: Path = Field(
        Path("runs"), description="folder of the runs' folders; on storage that driver and learner share"
    )
    experience: Literal["none", "scores", "images", "states"] = Field(
        "images", description="what a row of the parquet log holds; each includes the ones before"
    )
    grid_every: PositiveInt = Field(5, description="updates between sample grids")
    checkpoint_every: PositiveInt = Field(
        20, description="updates between checkpoints: what a lost learner costs at most"
    )
    checkpoints_kept: PositiveInt = Field(3, description="older ones are removed")
    policies: Literal["checkpoints", "all"] = Field(
        "checkpoints", description="versions whose LoRA weights are kept, for `rc-grpo replay`"
    )
    watch: bool = Field(
        False,
        description="serve the live page (`rc-grpo watch`) beside the driver while it runs; its link, which holds a "
        "token, is in the driver's output",
    )
    record_deadline_s: Seconds = Field(600.0, description="an update's records must be on the disk by then")
    trackers: tuple[Tracker, ...] = Field(
        (),
        description="where metrics, grids and summary go beside TensorBoard; keys and servers are read from the "
        "environment (WANDB_API_KEY, MLFLOW_TRACKING_URI, ...)",
    )
    project: str | None = Field(
        None,
        min_length=1,
        description="project of the trackers, MLflow's experiment; none takes WANDB_PROJECT, MLFLOW_EXPERIMENT_NAME "
        "or SWANLAB_PROJ_NAME, or `rc-grpo`",
    )

    @model_validator(mode="after")
    def _each_tracker_once(self) -> Self:
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError(f"output.trackers names one twice: {', '.join(self.trackers)}")
        return self


class ClusterConfig(Strict):
    """Which Ray cluster."""

    address: str | None = Field(None, description="`auto`, host:port or ray://...; none starts Ray on this machine")
    dashboard: bool = Field(True, description="of a Ray started here")
    cpus: PositiveInt | None = Field(
        None, description="logical CPUs of a Ray started here; none is the machine's count"
    )
    compiled: Path | None = Field(
        None,
        description="folder for compiled code, on every node or shared by them: an actor that is started again and "
        "the next run read what others compiled; none is where PyTorch, Triton and vLLM keep it on each node",
    )


class RunConfig(Strict):
    """The whole run."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="of the run's folder and Ray namespace; a run of this name and configuration goes on",
    )
    seed: int = Field(0, ge=0, lt=2**64, description="of all random numbers of the run")
    editor: EditorConfig = EditorConfig()
    data: DataConfig
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    learner: LearnerConfig = LearnerConfig()
    loop: LoopConfig = LoopConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    output: OutputConfig = OutputConfig()
    guards: GuardConfig = GuardConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def evaluated(self) -> EditorConfig:
        """The editor as evaluations run it."""
        guidance = self.evaluation.guidance
        return self.editor if guidance is None else self.editor.model_copy(update={"guidance": guidance})

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.objective.anchors > self.rollout.group_size - 1:
            raise ValueError(
                f"objective.anchors = {self.objective.anchors} but a group of rollout.group_size = "
                f"{self.rollout.group_size} has only {self.rollout.group_size - 1} perturbed candidates to draw from"
            )
        if self.objective.trained_steps is not None:
            if self.objective.anchor_path != "step" and self.objective.algorithm == "rc_grpo":
                raise ValueError("objective.trained_steps is for anchor_path `step`; the chain trains every step")
            if self.objective.trained_steps > self.rollout.steps:
                raise ValueError(
                    f"objective.trained_steps = {self.objective.trained_steps} > rollout.steps = {self.rollout.steps}"
                )
        self._algorithm_fits()
        if self.objective.acd_weight > 0 and not self.rollout.acd.enabled:
            raise ValueError(
                "objective.acd_weight > 0 needs rollout.acd.enabled; set the weight to 0 or enable the recording"
            )
        if self.objective.min_valid > self.rollout.group_size:
            raise ValueError(
                f"objective.min_valid = {self.objective.min_valid} > rollout.group_size = {self.rollout.group_size}"
            )
        if self.learner.fp8 and self.learner.shards_weights:
            raise ValueError(
                "learner.fp8 keeps whole frozen weights on every rank, which ZeRO 3 would shard; use zero_stage <= 2"
            )
        in_float8 = {"rollout.fp8": self.rollout.fp8, "learner.fp8": self.learner.fp8}
        if any(in_float8.values()) and self.objective.old_path != "recompute" and self.loop.learn:
            raise ValueError(
                f"{' and '.join(name for name, asked in in_float8.items() if asked)} with objective.old_path `stored` "
                "would compare anchors in float8 with others; set objective.old_path=recompute"
            )
        if not self.loop.learn and self.loop.feed is not None:
            raise ValueError("loop.feed is for learning; it does not go with loop.learn = false")
        if not self.loop.learn and self.learner.start_from is not None:
            raise ValueError("learner.start_from is for learning; loop.learn = false rolls out the untrained policy")
        if not self.loop.learn and self.output.experience == "none":
            raise ValueError(
                "loop.learn = false with output.experience `none` would leave nothing; set output.experience=states"
            )
        if self.evaluation.tasks and self.data.heldout is None:
            raise ValueError(
                "evaluation.tasks > 0 needs data.heldout; name a held-out source or set evaluation.tasks=0"
            )
        if (measure := self.evaluation.measured_by) is not None and measure not in self.reward.judges:
            raise ValueError(
                f"evaluation.measured_by names `{measure}`, which is no judge of the run; its judges are "
                f"{', '.join(self.reward.judges)}"
            )
        return self

    def _algorithm_fits(self) -> None:
        algorithm, sde = self.objective.algorithm, self.rollout.sde
        if (algorithm == "flow_grpo") != (sde is not None):
            raise ValueError(
                f"objective.algorithm = {algorithm} with rollout.sde = {'null' if sde is None else 'set'}: `flow_grpo` "
                "learns from the densities of stochastic steps, which nothing else does; set both or neither"
            )
        if sde is not None and (self.rollout.solver != "euler" or self.rollout.exploration != "global"):
            raise ValueError(
                "rollout.sde needs rollout.solver `euler` and rollout.exploration `global`: its steps are Euler's, and "
                "its noise knows no region"
            )
        if sde is not None and sde.window is not None and sde.window > self.rollout.steps:
            raise ValueError(f"rollout.sde.window = {sde.window} > rollout.steps = {self.rollout.steps}")
        if algorithm in ("diffusion_nft", "fdfo") and (self.loop.max_staleness or self.learner.steps_per_rollout > 1):
            raise ValueError(
                f"objective.algorithm `{algorithm}` has no ratio that would account for an older policy; set "
                "loop.max_staleness=0 and learner.steps_per_rollout=1"
            )
