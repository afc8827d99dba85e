"""The update of one group on one rank, by algorithm."""

from learner.updates.base import GroupUpdate
from learner.updates.finite_difference import FiniteDifferenceUpdate
from learner.updates.forward_process import ForwardProcessUpdate
from learner.updates.stochastic import StochasticUpdate
from learner.updates.surrogate import SurrogateUpdate
from rc_grpo.config import Algorithm

__all__ = ["UPDATES", "GroupUpdate", "SurrogateUpdate"]

UPDATES: dict[Algorithm, type[GroupUpdate]] = {
    "rc_grpo": SurrogateUpdate,
    "flow_grpo": StochasticUpdate,
    "diffusion_nft": ForwardProcessUpdate,
    "fdfo": FiniteDifferenceUpdate,
}
