"""What one process computes on a GPU, another one does, to the bit; encoders that wait come back as they were."""

import subprocess
import sys

import torch
from torch import nn

from rc_grpo.editor.stock.codec_parts import Waiting
from tests.gpu.models import CUDA

VELOCITY = """
import hashlib
import torch
from rc_grpo.editor.fast import compiling
from tests.gpu.models import conditions_of, rollout_blocks_of, states

denoiser = rollout_blocks_of(in_fp8=False)
compiling.compile_blocks(denoiser.body)
with torch.no_grad():
    velocity = denoiser.velocity(conditions_of(denoiser))(states(denoiser, 6), 0.5)
weights = hashlib.sha256()
for _, tensor in sorted(denoiser.transformer.state_dict().items()):
    weights.update(tensor.detach().float().cpu().numpy().tobytes())
print(weights.hexdigest(), hashlib.sha256(velocity.float().cpu().numpy().tobytes()).hexdigest())
"""


def test_two_processes_have_the_same_random_weights_and_the_same_velocity() -> None:
    said = [subprocess.run([sys.executable, "-c", VELOCITY], capture_output=True, text=True) for _ in range(2)]
    assert [one.returncode for one in said] == [0, 0], said[0].stderr + said[1].stderr
    first, second = (one.stdout.split() for one in said)
    assert first[0] == second[0], "the weights differ"
    assert first[1] == second[1]


def test_encoders_that_wait_take_memory_of_the_gpu_at_work_alone_and_lose_no_bit() -> None:
    encoder = nn.Linear(4096, 4096, dtype=torch.bfloat16)
    before = encoder.weight.detach().clone()
    waiting = Waiting([encoder], CUDA, offload=True)
    held = torch.cuda.memory_allocated()
    for _ in range(2):
        with waiting.at_work():
            assert torch.equal(encoder.weight.cpu(), before)
            assert encoder.weight.is_cuda
            assert torch.cuda.memory_allocated() >= held + before.nbytes
        assert encoder.weight.is_pinned()
        assert torch.cuda.memory_allocated() == held
    assert torch.equal(encoder.weight, before)
