"""What every branch of the configuration is made of."""

from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationInfo, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFraction = Annotated[float, Field(gt=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0, le=1e8)]
"""A time that timers and sockets take: three years at most."""

_LARGEST = 2**31 - 1
"""What counts come to is handed to code that holds it in 32 bits. Seeds have bounds of their own."""


class Strict(BaseModel):
    """Base of every branch: immutable, no unknown keys, no silent coercion of a default, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _switches_are_no_numbers(cls, values: Any) -> Any:
        """Refuse true where a number is meant, as it would count as 1; YAML reads `yes` and `on` so."""
        for name, value in values.items() if isinstance(values, dict) else ():
            annotation = cls.model_fields[name].annotation if name in cls.model_fields else bool
            items = list(value.values()) if isinstance(value, dict) and get_origin(annotation) is dict else value
            items = items if isinstance(items, list | tuple) else [items]
            if bool not in (annotation, *get_args(annotation)) and any(isinstance(item, bool) for item in items):
                raise ValueError(f"{name} takes no true or false, as which YAML also reads yes, no, on and off")
        return values

    @field_validator("*", mode="after")
    @classmethod
    def _is_countable(cls, value: Any, info: ValidationInfo) -> Any:
        counts = value if isinstance(value, tuple) else (value,)
        if info.field_name != "seed" and any(isinstance(count, int) and abs(count) > _LARGEST for count in counts):
            raise ValueError(f"is larger than {_LARGEST}")
        return value


class Resources(Strict):
    """What one actor asks Ray for."""

    num_cpus: float = Field(1.0, ge=0, description="logical CPUs, for placement; `threads` says how many it uses")
    num_gpus: float = Field(0.0, ge=0, description="GPUs that are its own")
    custom: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="custom resources, e.g. {rollout: 1}"
    )

    @model_validator(mode="after")
    def _ray_takes_them(self) -> Self:
        if self.num_gpus > 1 and self.num_gpus != int(self.num_gpus):
            raise ValueError(f"num_gpus = {self.num_gpus:g}: beyond one, Ray gives whole GPUs")
        if taken := self.custom.keys() & {"CPU", "GPU", "memory", "object_store_memory"}:
            raise ValueError(f"custom names {min(taken)}, which is Ray's own; use num_cpus and num_gpus")
        return self

    def as_ray(self) -> dict[str, float]:
        """Return the demand in Ray's own resource names, as in ``ray.cluster_resources()``."""
        named = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.custom}
        return {name: amount for name, amount in named.items() if amount > 0}


def actor_options(namespace: str, name: str, threads: int, resources: Resources) -> dict[str, Any]:
    """Return the keyword arguments of Ray's ``ActorClass.options`` for a named actor of so many CPU threads."""
    return {
        "name": name,
        "namespace": namespace,
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}},
        "num_cpus": resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "resources": resources.custom,
    }


class AutoscaleConfig(Strict):
    """When a pool grows and shrinks by itself, decided after each update."""

    min_workers: PositiveInt = Field(1, description="it never shrinks below")
    max_workers: PositiveInt = Field(description="it never grows above")
    grow_above: Fraction = Field(
        0.1, description="share of the time in which the learner waits for this pool, above which it grows"
    )
    spare: Fraction = Field(
        0.1, description="share of one worker that must be idle beyond a whole one before the pool gives one up"
    )

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if self.min_workers > self.max_workers:
            raise ValueError(f"min_workers = {self.min_workers} > max_workers = {self.max_workers}")
        return self


class PoolConfig(Strict):
    """A pool of actors of one kind."""

    workers: PositiveInt = Field(1, description="actors of this pool")
    threads: PositiveInt = Field(1, description="CPU threads of an actor; part of what makes a result repeatable")
    resources: Resources = Resources()
    start_deadline_s: Seconds = Field(600.0, description="an actor must be up by then")
    start_retry_s: Seconds = Field(
        30.0, description="pause before an actor that did not start is tried again, while others keep the pool going"
    )
    call_deadline_s: Seconds = Field(600.0, description="one call must be answered by then")
    autoscale: AutoscaleConfig | None = Field(None, description="none: `workers`, until `rc-grpo scale` says otherwise")
    attempts: PositiveInt = Field(3, description="how often a call is given to another actor before the run ends")

    def actor_options(self, namespace: str, name: str) -> dict[str, Any]:
        """Return the keyword arguments of ``ActorClass.options`` for one actor of this pool."""
        return actor_options(namespace, name, self.threads, self.resources)
