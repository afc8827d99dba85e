"""The same edit by the code that trains: velocity, schedule and codec of the family, a step at a time."""

import torch
from torch import Tensor

from deploy.doctor.stock import StockEdit
from rc_grpo.editor import files
from rc_grpo.editor.editor import Editor
from rc_grpo.images import Pixels
from rc_grpo.messages import Conditions

ALIKE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""How far the first velocity may be from the stock pipeline's, relative to its norm."""


@torch.no_grad()
def training_side_edit(editor: Editor, conditions: Conditions, noise: Tensor, guidance: float, steps: int) -> Pixels:
    """Edit from the stock pipeline's noise, keeping states in the model's precision as it does."""
    # On the device, as the scheduler's are: a scalar there is rounded to the model's precision, one on the host not.
    velocity, sigmas = editor.velocity(conditions, guidance), editor.sigmas(steps, conditions).float().to(editor.device)
    # Both passes of a guidance are combined in the model's precision, too.
    x = noise.to(editor.device, files.dtype(editor.config))
    for n in range(steps):
        step = (sigmas[n + 1] - sigmas[n]) * velocity(x, float(sigmas[n]))
        x = (x.float() + step).to(x.dtype)
    image: Pixels = editor.decode(x.float(), conditions)[0]
    return image


@torch.no_grad()
def disagreement(editor: Editor, conditions: Conditions, stock: StockEdit, guidance: float) -> str | None:
    """Say in what the training side differs from the stock pipeline, or None: schedule, sign, or what is put in."""
    steps, alike = len(stock.states), ALIKE[files.dtype(editor.config)]
    sigmas = editor.sigmas(steps, conditions)
    if float((sigmas - stock.sigmas).abs().max()) > 1e-4:
        shown = [", ".join(f"{float(level):.4f}" for level in levels) for levels in (sigmas, stock.sigmas)]
        return f"its schedule is {shown[0]}, the stock pipeline's {shown[1]}"
    x, theirs = stock.states[0].to(editor.device), stock.velocity
    ours = editor.velocity(conditions, guidance)(x, float(stock.sigmas[0]))
    apart = float((ours - theirs).norm() / theirs.norm())
    if apart <= alike:
        return None
    if float((ours + theirs).norm() / theirs.norm()) <= 2 * alike:
        return "its velocity has the opposite sign"
    return (
        f"its first velocity is {apart:.1%} off the stock pipeline's: text (template, padding, length), source, "
        "position ids or guidance are put in otherwise"
    )
