"""What a plan says of a prefix that all passes share: time and memory, by hand."""

import pytest

from deploy.configs import load_config
from deploy.planning.work import learning_tflop, memory_gib
from rc_grpo.config import RunConfig
from rc_grpo.editor.loading import load_architecture

WIDTH, LAYERS, IMAGE, TEXT = 4096, 32, 4096, 48
A_TOKENS_PROJECTIONS = 2 * 13 * WIDTH**2 * LAYERS / 1e12
A_PAIR = 4 * WIDTH * LAYERS / 1e12


def config(prefix: str, *overrides: str) -> RunConfig:
    own = ("editor.resolution=1024", "editor.source_resolution=1024", f"editor.prefix={prefix}")
    return load_config("qwen_image_21", (*own, "editor.model=full-size-qwen-image-21", *overrides))


def test_a_pass_behind_a_prefix_is_the_targets_alone_and_takes_half() -> None:
    editor = config("shared").editor
    sizes = load_architecture(editor)
    tokens = sizes.tokens(editor)
    assert tokens.prefix == TEXT + IMAGE
    projections, attention = sizes.forward_tflop(tokens)
    assert projections == pytest.approx(IMAGE * A_TOKENS_PROJECTIONS)
    assert attention == pytest.approx(IMAGE * (2 * IMAGE + TEXT) * A_PAIR)
    assert projections + attention == pytest.approx(75, abs=1)
    whole = load_architecture(config("none").editor)
    unshared = sum(whole.forward_tflop(whole.tokens(config("none").editor)))
    assert sum(sizes.prefill_tflop(tokens)) + projections + attention == pytest.approx(unshared)
    assert sum(whole.prefill_tflop(whole.tokens(config("none").editor))) == 0


@pytest.mark.parametrize("guidance", [1, 4])
def test_learning_takes_the_prefix_once_a_group_and_text(guidance: int) -> None:
    texts = 2 if guidance > 1 else 1
    shared = config("shared", f"editor.guidance={guidance}")
    passes = shared.objective.anchors * shared.rollout.steps * texts
    step = 2 * IMAGE * A_TOKENS_PROJECTIONS + 3.5 * IMAGE * (2 * IMAGE + TEXT) * A_PAIR
    pairs = IMAGE**2 + TEXT * (IMAGE + TEXT)
    ahead = 2 * (IMAGE + TEXT) * A_TOKENS_PROJECTIONS + 3.5 * pairs * A_PAIR
    assert learning_tflop(shared) == pytest.approx(passes * step + texts * ahead)


@pytest.mark.parametrize("guidance", [1, 4])
def test_memory_names_the_keys_and_values_that_are_kept(guidance: int) -> None:
    """In bfloat16, with gradients in float32 beside them in the learner, whose passes hold the target alone."""
    texts = 2 if guidance > 1 else 1
    plain, shared = (memory_gib(config(prefix, f"editor.guidance={guidance}")) for prefix in ("none", "shared"))
    numbers = texts * 2 * LAYERS * WIDTH * (TEXT + IMAGE)
    more = shared["rollout worker"] - plain["rollout worker"]
    assert more == pytest.approx(numbers * 2 / 2**30)
    assert texts * 1.9 < more < texts * 2.1
    one = config("shared", f"editor.guidance={guidance}", "learner.anchors_per_pass=1")
    two = config("shared", f"editor.guidance={guidance}", "learner.anchors_per_pass=2")
    half = config("none", f"editor.guidance={guidance}", "learner.anchors_per_pass=1")
    pass_of = memory_gib(two)["learner rank"] - memory_gib(one)["learner rank"]
    kept = memory_gib(one)["learner rank"] - memory_gib(half)["learner rank"]
    # One pass less of the prefix's activations, and one for each text, which is not compiled and keeps more.
    activations = (1.55 * texts - 1) * (TEXT + IMAGE) / IMAGE * pass_of
    assert kept == pytest.approx(numbers * 6 / 2**30 + activations)
