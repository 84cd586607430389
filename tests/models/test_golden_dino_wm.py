"""DINO-WM's world model and its CEM, recorded with random weights, are reproduced."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.base import Encoder
from wmbench.models.predictor import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.planning.cem import CEM
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.objective import goal_distance
from wmbench.shapes import Obs

VISUAL, STATE = slice(0, 16), slice(16, 20)  # channels of z; the original appends four more of the action


class PatchLinear(Encoder):
    """The record's stand-in for a frozen encoder: one linear layer over square patches, frames (B T 3 h w) as they are."""

    def __init__(self, image_size: int, patches_per_side: int, weight: Tensor, bias: Tensor):
        grid = (patches_per_side, patches_per_side)
        super().__init__(image_size=image_size, grid=grid, embed_dim=len(bias), frozen=True, source="recorded")
        self.patch_size = image_size // patches_per_side
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.freeze()

    def preprocess(self, visual: Tensor) -> Tensor:
        return rearrange(visual, "b t c h w -> (b t) c h w")

    def tokens(self, pixels: Tensor) -> Tensor:
        patches = rearrange(pixels, "f c (r h) (k w) -> f (r k) (c h w)", h=self.patch_size, w=self.patch_size)
        return nn.functional.linear(patches, self.weight, self.bias)


class RecordedNoise(KeyedNoise):
    """The noise that the original drew: (iteration, task, sample, step, action)."""

    def __init__(self, drawn: Tensor):
        self.drawn = drawn

    def __call__(self, iteration: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        assert shape == self.drawn.shape[2:]
        return self.drawn[iteration]


@pytest.fixture
def record(golden: Path) -> SimpleNamespace:
    return SimpleNamespace(**torch.load(golden / "world_model_tiny.pt", weights_only=True))


@pytest.fixture
def trace(golden: Path) -> SimpleNamespace:
    return SimpleNamespace(**torch.load(golden / "cem_trace_tiny.pt", weights_only=True))


@pytest.fixture
def model(record: SimpleNamespace) -> WorldModel:
    config, linear = SimpleNamespace(**record.config), record.encoder_patch_linear
    predictor = FrameCausalViT(
        dim=config.visual_dim + config.proprio_emb_dim,
        num_tokens=config.patches_per_side**2,
        num_hist=config.num_hist,
        action_dim=config.action_dim,
        action_embed_dim=config.action_emb_dim,
        depth=config.depth,
        num_heads=config.heads,
        head_dim=config.dim_head,
        mlp_dim=config.mlp_dim,
        dropout=0.1,
    )
    weights = {name.removeprefix("transformer."): tensor for name, tensor in record.predictor.items()}
    predictor.load_state_dict(weights | affine("action_encoder.", record.action_encoder))
    model = WorldModel(
        PatchLinear(config.image_size, config.patches_per_side, linear["lin.weight"], linear["lin.bias"]),
        predictor,
        Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4)),  # the record is normalised already
        proprio="full",
        proprio_embed_dim=config.proprio_emb_dim,
        frameskip=5,
        num_hist=config.num_hist,
    )
    model.proprio_encoder.load_state_dict(affine("", record.proprio_encoder))
    return model.eval().requires_grad_(False)


def affine(prefix: str, conv: dict[str, Tensor]) -> dict[str, Tensor]:
    """A linear layer's weights from those of the original's convolution of width 1."""
    return {f"{prefix}weight": conv["patch_embed.weight"].squeeze(-1), f"{prefix}bias": conv["patch_embed.bias"]}


def without_action(z: Tensor) -> Tensor:
    return z[..., : STATE.stop]


def cost_of(z: Tensor, goal_visual: Tensor, goal_proprio: Tensor, alpha: float) -> Tensor:
    """The original's objective on the last of predicted latents (B S H N D), from our goal_distance.

    It weighs visual and proprio channels apart, and reads the latter from the first patch alone.
    """
    visual = goal_distance(z[..., VISUAL], goal_visual, "last")
    return visual + alpha * goal_distance(z[..., :1, STATE], goal_proprio, "last")


def test_encode_is_the_originals(model: WorldModel, record: SimpleNamespace, assert_recorded: Callable):
    assert_recorded(model.encode(Obs(**record.obs)), without_action(record.z))


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_predict_is_the_originals(model: WorldModel, record: SimpleNamespace, frames: int, assert_recorded: Callable):
    z = model.encode(Obs(**record.obs))
    prediction = model.predict(z[:, :frames], record.act[:, :frames])
    assert_recorded(prediction, without_action(record.predict[f"T{frames}"]))


def test_loss_is_the_originals(model: WorldModel, record: SimpleNamespace, assert_recorded: Callable):
    obs = Obs(**record.obs)
    assert_recorded(model.loss(obs, record.act).prediction[None], record.loss["z_loss"])
    z = model.encode(obs)
    squared = (model.predict(z[:, :-1], record.act[:, :-1]) - z[:, 1:]).square()
    assert_recorded(squared[..., VISUAL].mean()[None], record.loss["z_visual_loss"])
    assert_recorded(squared[..., STATE].mean()[None], record.loss["z_proprio_loss"])


@pytest.mark.parametrize("frames", [1, 2])
def test_rollout_is_the_originals(model: WorldModel, record: SimpleNamespace, frames: int, assert_recorded: Callable):
    recorded = getattr(record, f"rollout_{frames}")
    z = model.encode(Obs(**recorded["obs_0"]))
    past, plan = recorded["act"][:, : frames - 1], recorded["act"][:, frames - 1 :]
    found = torch.cat([z, model.rollout(z, past, plan[:, None])[:, 0]], dim=1)
    assert_recorded(found, without_action(recorded["z"]))


@pytest.mark.parametrize(("alpha", "name"), [(0.0, "last_a0"), (0.5, "last_a0.5")])
def test_cost_is_the_originals(record: SimpleNamespace, alpha: float, name: str, assert_recorded: Callable):
    z, goal = record.rollout_1["z"][:, None], record.goal
    found = cost_of(z, goal["visual"][:, 0], goal["proprio"], alpha)
    assert_recorded(found[:, 0], record.cost[name])


def test_cem_goes_the_originals_way(model: WorldModel, trace: SimpleNamespace, assert_recorded: Callable):
    """Means after each iteration, the samples that follow from their standard deviations, and the best of their costs."""
    z, goal = model.encode(Obs(**trace.obs_0)), model.encode(Obs(**trace.obs_g))[:, 0]
    num_iters, num_tasks, num_samples = trace.noise.shape[:3]
    scored: list[Tensor] = []
    best: list[Tensor] = []

    def cost(plans: Tensor) -> Tensor:
        costs = cost_of(model.rollout(z, z.new_zeros(num_tasks, 0, 10), plans), goal[..., VISUAL], goal[:, :1, STATE], 0.5)
        scored.append(plans)
        best.append(costs.min(dim=1).values)
        return costs

    assert trace.alpha == 0.5
    start = torch.zeros(num_tasks, trace.horizon, 10)
    for iterations in range(1, num_iters + 1):
        scored.clear(), best.clear()
        planner = CEM(num_samples, trace.topk, iterations, trace.var_scale)
        assert_recorded(planner(cost, start, RecordedNoise(trace.noise)), trace.mean[iterations - 1], tolerance=1e-4)
    assert_recorded(torch.stack(best), trace.best_cost, tolerance=1e-4)
    for k in range(1, num_iters):
        samples = trace.mean[k - 1][:, None] + trace.std[k - 1][:, None] * trace.noise[k]
        assert_recorded(scored[k][:, 1:], samples[:, 1:], tolerance=1e-4)
        assert_recorded(scored[k][:, 0], trace.mean[k - 1], tolerance=1e-4)
