"""A controller bred in the dream: what a dream costs, and that CMA-ES lowers it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from few_steps import FEW_STEPS
from jaxtyping import Float
from steered import ACTION, model_around
from torch import Tensor

from wmbench.data.windows import Windows
from wmbench.models.controller import LinearController
from wmbench.models.gru import GRUPredictor, Remembered
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.planning.agent import Situation
from wmbench.planning.inverse import InverseAgent
from wmbench.planning.noise import KeyedNoise
from wmbench.runs.recipe import Recipe
from wmbench.training.dream import breed, dream_cost

DIM, BLOCKS = 5, 3


class Steered(GRUPredictor):
    """Of which an action moves the first two numbers."""

    def step(self, state: Remembered, action: Tensor) -> tuple[Tensor, Remembered]:
        z, state = super().step(state, action)
        z = z + torch.nn.functional.pad(action[:, None, :2], (0, DIM - 2))
        return z, state._replace(z=z)


@pytest.fixture
def model() -> WorldModel:
    return model_around(Steered, DIM).requires_grad_(False)


@pytest.fixture
def controller(model: WorldModel) -> LinearController:
    return LinearController(DIM, 1, ACTION, model.predictor.memory_dim, action_size=2)


def test_a_dream_costs_what_the_rollout_of_its_actions_ends_at(model: WorldModel, controller: LinearController):
    """Of each controller by itself, whose blocks repeat an action and stay within the actuator's range."""
    start, goal = torch.randn(4, 1, DIM), torch.randn(4, 1, DIM)
    vectors = torch.randn(5, controller.num_weights)
    costs = dream_cost(model, controller, (start, goal), BLOCKS, vectors)
    for vector, cost in zip(vectors, costs, strict=True):
        weight, bias = controller.unpack(vector)
        controller.act.load_state_dict({"weight": weight, "bias": bias})
        agent = InverseAgent(model, controller, num_taken=BLOCKS, num_context=1, clip_actions=True, memory_gb=1)
        agent._device = start.device
        here = Situation(start[:, None], torch.zeros(4, 0, ACTION), goal)
        plans = agent.propose(here, torch.zeros(4, BLOCKS, ACTION), KeyedNoise(0, np.arange(4), 0))
        assert torch.equal(plans[..., :2], plans[..., 2:4]) and torch.equal(plans[..., :2], plans[..., 4:])
        actions = model.normalizer.denormalize_action(plans)
        assert actions.abs().max() <= 1 + 1e-6
        ends = model.rollout(start[:, None], here.past, plans[:, None])[:, 0, -1]
        torch.testing.assert_close(cost, (ends - goal).square().mean())
        alone: Float[Tensor, "1 3 6"] = agent.propose(
            Situation(*(part[1:2] for part in here)), torch.zeros(1, BLOCKS, ACTION), KeyedNoise(0, np.arange(1), 0)
        )
        torch.testing.assert_close(alone[0], plans[1])


def test_breeding_comes_nearer_to_goals_and_is_the_same_every_time(
    model: WorldModel, controller: LinearController, numbered_episodes: Callable
):
    pytest.importorskip("cma")
    episodes = numbered_episodes(num_episodes=6, length=12)
    train, valid = (Windows(episodes, np.array(which), 2, 3) for which in ([0, 1, 2, 3], [4, 5]))
    recipe, bred = Recipe(**(FEW_STEPS | {"max_steps": 20, "lr": 0.03})), []
    for _ in range(2):
        before, after = breed(model, controller, train, valid, recipe, BLOCKS, seed=3)
        bred.append(controller.act.weight.clone())
        assert after < 0.95 * before
    assert torch.equal(*bred)


def test_a_controller_needs_a_predictor_that_remembers_and_blocks_of_whole_actions(model: WorldModel):
    vit = FrameCausalViT(DIM, 1, 3, ACTION, action_embed_dim=3, depth=1, num_heads=2, head_dim=6, mlp_dim=8, dropout=0.0)
    with pytest.raises(
        ValueError, match="policy=controller and policy=actor_critic need a recurrent predictor, and FrameCausalViT is none"
    ):
        _ = vit.memory_dim
    with pytest.raises(ValueError, match=r"policy\.action_size \(4\) must divide the 6 numbers of a block"):
        LinearController(DIM, 1, ACTION, 4, action_size=4)
