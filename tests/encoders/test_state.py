"""The state encoder: distances between latents are those between states."""

import pytest
import torch

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.state import State
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.shapes import Obs

WEIGHT = torch.tensor([1.0, 1.0, 0.3, 0.3])


@pytest.fixture
def encoder() -> State:
    return State(embed_dim=7, velocity_weight=0.3, seed=0)


def states(frames: int, seed: int) -> Obs:
    proprio = torch.randn(3, frames, 4, generator=torch.Generator().manual_seed(seed))
    return Obs(visual=torch.zeros(3, frames, 2, 2, 3, dtype=torch.uint8), proprio=proprio)


def test_distances_between_latents_are_those_between_velocity_weighted_states(encoder: State):
    start, goal = states(1, seed=0), states(1, seed=1)
    expected = (WEIGHT * (start["proprio"] - goal["proprio"])).square().mean(-1)
    found = (encoder(start) - encoder(goal)).square().mean((-2, -1))
    torch.testing.assert_close(found, expected)


def test_a_world_model_hands_over_normalised_states(encoder: State):
    normalizer = Normalizer(torch.zeros(2), torch.ones(2), torch.tensor([1.0, 2, 3, 4]), torch.tensor([0.5, 2, 4, 8]))
    options = {"proprio": "none", "proprio_embed_dim": 1, "frameskip": 1, "num_hist": 1}
    predictor = FrameCausalViT(7, 1, 1, 2, 3, depth=1, num_heads=2, head_dim=6, mlp_dim=11, dropout=0.0)
    model = WorldModel(encoder, predictor, normalizer, **options)
    start, goal = states(1, seed=0), states(1, seed=1)
    difference = (start["proprio"] - goal["proprio"]) / torch.tensor([0.5, 2, 4, 8])
    expected = (WEIGHT * difference).square().mean(-1)
    found = (model.encode(start) - model.encode(goal)).square().mean((-2, -1))
    torch.testing.assert_close(found, expected)


def test_the_lift_is_orthonormal_up_to_the_velocity_weight(encoder: State):
    torch.testing.assert_close(encoder.lift.T @ encoder.lift, torch.diag(WEIGHT**2) * 7 / 4)


def test_it_reads_no_pixel(encoder: State):
    obs = states(2, seed=0)
    blind = Obs(visual=torch.empty(3, 2, 0, 0, 3, dtype=torch.uint8), proprio=obs["proprio"])
    assert torch.equal(encoder(blind), encoder(obs))
    with pytest.raises(TypeError, match="reads proprio, not pixels"):
        encoder.tokens(torch.zeros(1, 3, 1, 1))
