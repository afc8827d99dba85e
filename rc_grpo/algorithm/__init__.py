"""The paper's equations, one concept a file, as pure functions of tensors.

- `perturbation`: the noises of a group, different inside the region to edit and alike outside it
- `solver`: deterministic integration from noise to image, one step at a time
- `metric`: how far two states are apart, each region on its own scale
- `surrogate`: the policy that nearness to the candidates stands in for, and its ratio
- `rewards`: from scores to advantages; a failure is never a reward
- `objective`: the clipped surrogate, its divergence, and its gradient in closed form
- `adjoint`: the gradient through a whole rollout in the memory of one step
- `attention_density`: how much of the prompt's attention lands inside the region

Imports torch and nothing of ours outside this folder. `README.md` says how the pieces meet.
"""
