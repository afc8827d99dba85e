"""The paper's numbers on CompBench, to stand beside a run's."""

from dataclasses import dataclass

SOURCE = "the paper's Tables 1 to 3, CompBench at 512 × 512, official metrics"


@dataclass(frozen=True)
class Published:
    """A row of the paper's tables; the fields after the method are those of `rc_grpo.evaluation.scores.METRICS`."""

    method: str
    lc_i: float
    lc_t: float
    psnr: float
    ssim: float
    lpips: float


ROWS = {
    "Editors": (
        Published("FLUX.1-Kontext-dev", 0.818, 21.027, 24.585, 0.890, 0.071),
        Published("InstructPix2Pix", 0.777, 19.445, 21.416, 0.695, 0.173),
        Published("Step1X-Edit", 0.817, 20.501, 23.371, 0.882, 0.078),
        Published("GoT", 0.807, 20.268, 24.675, 0.890, 0.067),
    ),
    "Ablation": (
        Published("GRPO, global perturbation", 0.820, 21.529, 24.384, 0.884, 0.074),
        Published("GRPO + RDP", 0.821, 21.540, 24.788, 0.893, 0.070),
        Published("RC-GRPO-Editing (RDP + ACD)", 0.822, 21.548, 24.952, 0.897, 0.068),
    ),
    "Region-wise tau (edit, base)": (
        Published("tau (1.0, 1.0)", 0.821, 21.533, 24.906, 0.896, 0.069),
        Published("tau (0.8, 1.2)", 0.819, 21.640, 24.726, 0.883, 0.072),
        Published("tau (1.2, 0.8)", 0.821, 21.499, 24.996, 0.902, 0.068),
    ),
}
"""What is compared -> rows."""
