"""Fast rollouts: the same latents as one plain prediction after another, with nothing computed twice."""

import copy

import pytest
import torch
from situations import ACTION, DIM, HORIZON, NUM_HIST, PLANS, TASKS, TOKENS, model_around, situation
from torch import Tensor, nn
from torch.nn.functional import linear

from wmbench.models.adaln import AdaLNPredictor
from wmbench.models.attention import Attention, FeedForward, Linear, padded_affine
from wmbench.models.precision import Bf16Predictor, set_precision
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel

SIZE = {"depth": 3, "num_heads": 2, "head_dim": 6, "mlp_dim": 11, "dropout": 0.1}


def vit(concat_dim: int) -> FrameCausalViT:
    return FrameCausalViT(DIM, TOKENS, NUM_HIST, ACTION, action_embed_dim=3, concat_dim=concat_dim, **SIZE)


def adaln() -> AdaLNPredictor:
    predictor = AdaLNPredictor(DIM, TOKENS, NUM_HIST, ACTION, smoothed_dim=3, projector_dim=13, **SIZE)
    for layer in predictor.layers:
        nn.init.normal_(layer.modulation[-1].weight)  # a new one's gates are shut
    return predictor


@pytest.fixture(params=["vit", "vit with an action token", "adaln"])
def model(request: pytest.FixtureRequest) -> WorldModel:
    torch.manual_seed(0)
    predictor = {"vit": lambda: vit(1), "vit with an action token": lambda: vit(0), "adaln": adaln}[request.param]()
    return model_around(predictor).eval().requires_grad_(False)


def plainly(model: WorldModel, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
    """Each plan alone, with every frame of its window at every step."""
    rolled_out = torch.empty(TASKS, PLANS, HORIZON, TOKENS, DIM)
    for task in range(TASKS):
        for plan in range(PLANS):
            frames, blocks = z[task, None], torch.cat([past[task], plans[task, plan]])[None]
            for end in range(z.shape[1], z.shape[1] + HORIZON):
                window = slice(max(0, end - NUM_HIST), end)
                frames = torch.cat([frames, model.predict(frames[:, window], blocks[:, window])[:, -1:]], 1)
            rolled_out[task, plan] = frames[0, z.shape[1] :]
    return rolled_out


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_a_rollout_is_the_plain_one(model: WorldModel, frames: int):
    z, past, plans = situation(frames)
    found, expected = model.rollout(z, past, plans), plainly(model, z, past, plans)
    assert ((found - expected).norm() / expected.norm()).item() < 1e-5 / 3


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (1, 1 + 1 + 1 + 3 + 3 + 3),  # the window grows: one new frame a step; then it slides, and every place is new
        (2, 1 + 1 + 3 + 3 + 3 + 3),
        (3, 1 + 2 + 3 + 3 + 3 + 3),  # of the first two windows two frames and one are real, with actions that are past
    ],
)
def test_nothing_is_computed_twice(model: WorldModel, frames: int, expected: int, monkeypatch: pytest.MonkeyPatch):
    """Tokens that pass the first layer: those of each plan, and of real frames with past actions once a task."""
    first = next(module for module in model.modules() if isinstance(module, Attention))
    passed = []
    inside = getattr(model.predictor, "tokens_inside", TOKENS)
    first.norm.register_forward_hook(lambda module, inputs, output: passed.append(len(output) * output.shape[1]))
    model.rollout(*situation(frames))
    shared = {1: 0, 2: 1, 3: 2 + 1}[frames]
    assert sum(passed) == inside * TASKS * (PLANS * expected + shared)


def test_the_last_layer_answers_for_the_newest_frame_alone(model: WorldModel):
    last = [module for module in model.modules() if isinstance(module, FeedForward)][-1]
    asked = []
    last.register_forward_hook(lambda module, inputs, output: asked.append(output.shape[1]))
    model.rollout(*situation(1))
    assert set(asked) == {getattr(model.predictor, "tokens_inside", TOKENS)}


def test_gradients_reach_the_plans_as_in_the_plain_rollout(model: WorldModel):
    z, past, plans = situation(2)
    gradients = []
    for rollout in (lambda plans: model.rollout(z, past, plans), lambda plans: plainly(model, z, past, plans)):
        leaf = plans.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(rollout(leaf).square().sum(), leaf)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_bf16_rounds_the_products_of_a_rollout_and_nothing_more(model: WorldModel):
    """Eight bits of precision leave some percent after six steps; what is added up is fp32, and so is what comes out."""
    situated = situation(3)
    exact, rounded = model.rollout(*situated), copy.deepcopy(model)
    set_precision(rounded, "bf16", compiled=False)
    found = rounded.rollout(*situated)
    error = ((found - exact).norm() / exact.norm()).item()
    assert found.dtype == torch.float32
    assert 1e-4 < error < 0.05
    assert isinstance(rounded.predictor, Bf16Predictor)
    kinds = {parameter.dtype for parameter in rounded.predictor.parameters() if parameter.dim() == 2}
    assert kinds == {torch.bfloat16} and rounded.predictor.predictor.norm.weight.dtype == torch.float32


def test_a_precision_that_is_not_known_or_not_here_is_refused(model: WorldModel):
    with pytest.raises(ValueError, match="unknown precision 'fp8'; known: fp32, tf32, bf16"):
        set_precision(model, "fp8", compiled=False)
    with pytest.raises(ValueError, match="tf32 needs a CUDA GPU, and this is cpu"):
        set_precision(model, "tf32", compiled=False)


@pytest.mark.parametrize(("wide", "out"), [(404, 12), (16, 404), (5, 7), (8, 16)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_padding_to_what_tensor_cores_like_changes_nothing(wide: int, out: int, has_bias: bool):
    torch.manual_seed(0)
    x, layer = torch.randn(3, 2, wide), Linear(wide, out, bias=has_bias)
    found = padded_affine(x, layer.weight, layer.bias)
    assert found.shape == (3, 2, out)
    torch.testing.assert_close(found, linear(x, layer.weight, layer.bias))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_rolls_out_the_same_latents_and_pads_what_is_rounded(model: WorldModel):
    situated = situation(2)
    expected, on_gpu = model.rollout(*situated), copy.deepcopy(model).cuda()
    torch.testing.assert_close(on_gpu.rollout(*(x.cuda() for x in situated)).cpu(), expected, rtol=1e-4, atol=1e-5)
    set_precision(on_gpu, "bf16", compiled=False)
    found = on_gpu.rollout(*(x.cuda() for x in situated)).cpu()
    assert ((found - expected).norm() / expected.norm()).item() < 0.05
