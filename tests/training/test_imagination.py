"""An actor and a critic that learn in dreams: returns, whom a gradient reaches, and that the actor comes to its goals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from few_steps import FEW_STEPS
from steered import ACTION, model_around
from torch import Tensor

from wmbench.data.windows import Windows
from wmbench.models.actor_critic import ActorCritic
from wmbench.models.gru import GRUPredictor, Remembered
from wmbench.models.world_model import WorldModel
from wmbench.planning.agent import limits
from wmbench.runs.recipe import Recipe
from wmbench.training.imagination import ImaginationTrainee, dreamt_losses
from wmbench.training.part import Part

DIM, BLOCKS = 4, 3
SIZES: dict[str, Any] = {"width": 16, "discount": 0.9, "trace": 0.8, "entropy": 1e-3}


class Moved(GRUPredictor):
    """Of which an action moves the first two numbers, and nothing else happens."""

    def step(self, state: Remembered, action: Tensor) -> tuple[Tensor, Remembered]:
        z = state.z + torch.nn.functional.pad(action[:, None, :2], (0, DIM - 2))
        return z, super().step(state, action)[1]._replace(z=z)


@pytest.fixture
def model() -> WorldModel:
    return model_around(Moved, DIM)


@pytest.fixture
def policy(model: WorldModel) -> ActorCritic:
    policy = ActorCritic(DIM, 1, ACTION, model.predictor.memory_dim, **SIZES)
    policy.within(*limits(model, torch.device("cpu")))
    return policy


def test_returns_are_the_mixture_of_those_that_end_with_the_critic_after_each_number_of_blocks():
    """Sutton and Barto (2018), equation 12.3."""
    policy = ActorCritic(DIM, 1, ACTION, 2, **SIZES)
    reward, value = torch.randn(2, 5, 4, dtype=torch.float64).unbind()
    found = policy.returns(reward, value)
    gamma, trace = SIZES["discount"], SIZES["trace"]
    for t in range(4):
        left = 4 - t
        ends = [
            sum(gamma**k * reward[:, t + k] for k in range(n)) + gamma**n * value[:, t + n - 1] for n in range(1, left + 1)
        ]
        mixed = (1 - trace) * sum(trace ** (n - 1) * end for n, end in enumerate(ends[:-1], 1))
        torch.testing.assert_close(found[:, t], mixed + trace ** (left - 1) * ends[-1])


def test_the_actor_is_taught_by_returns_and_the_critic_by_its_own_error(model: WorldModel, policy: ActorCritic):
    z, goal = torch.randn(2, 5, 1, DIM)
    for weights in policy.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    torch.manual_seed(1)
    losses = dreamt_losses(model, policy, z, goal, BLOCKS)
    torch.testing.assert_close(losses.total.detach(), losses.parts["actor"] + losses.parts["critic"])
    losses.total.backward()
    assert all(weights.grad is not None and weights.grad.abs().sum() > 0 for weights in policy.parameters())
    seen = torch.randn(5, 2 * DIM + model.predictor.memory_dim, requires_grad=True)
    torch.testing.assert_close(policy.value(seen, is_judged=True), policy.value(seen))
    told = torch.autograd.grad(policy.value(seen).sum(), (seen, *policy.critic.parameters()))
    (judged,) = torch.autograd.grad(policy.value(seen, is_judged=True).sum(), seen)
    torch.testing.assert_close(judged, told[0])
    policy.zero_grad()
    policy.value(seen, is_judged=True).sum().backward()
    assert all(weights.grad is None for weights in policy.critic.parameters())


def test_blocks_stay_within_the_actuators_range_and_are_drawn_in_training_only(model: WorldModel, policy: ActorCritic):
    for weights in policy.parameters():
        torch.nn.init.normal_(weights, std=3.0)
    z, goal, memory = torch.randn(8, 1, DIM), torch.randn(8, 1, DIM), torch.randn(8, model.predictor.memory_dim)
    lowest, highest = limits(model, z.device)
    before, best = torch.get_rng_state(), policy.eval()(z, memory, goal)
    assert torch.equal(best, policy(z, memory, goal))
    dreamt_losses(model, policy, z, goal, BLOCKS)
    assert torch.equal(torch.get_rng_state(), before)
    drawn, entropy = policy.train().act(torch.cat([z[:, 0], memory, goal[:, 0]], dim=1))
    assert not torch.equal(drawn, best) and entropy.shape == (8,)
    for block in (drawn, best):
        assert ((block >= lowest - 1e-6) & (block <= highest + 1e-6)).all()


def test_an_actor_learns_to_come_to_its_goals_and_leaves_the_model_alone(model: WorldModel, numbered_episodes: Callable):
    episodes = numbered_episodes(num_episodes=6, length=12)
    train, valid = (Windows(episodes, np.array(which), 2, 3) for which in ([0, 1, 2, 3], [4, 5]))
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    policy = ActorCritic(DIM, 1, ACTION, model.predictor.memory_dim, **SIZES)
    recipe = Recipe(**(FEW_STEPS | {"max_steps": 80, "lr": 0.01, "batch_size": 16}))
    trainee = ImaginationTrainee(model, Part("policy", {}, policy), train, valid, recipe, 0, BLOCKS)
    first = trainee.validate()["valid_error"]
    batches = trainee.batches(0)
    for _ in range(recipe.max_steps):
        trainee.optimizer.zero_grad()
        trainee.forward(next(batches)).total.backward()
        trainee.optimizer.step()
    batches.close()
    assert trainee.validate()["valid_error"] < 0.7 * first  # goals differ from what is seen also where no action reaches
    assert all(torch.equal(weights, before[name]) for name, weights in model.state_dict().items())


@pytest.mark.parametrize("name", ["discount", "trace"])
def test_a_discount_or_trace_beyond_one_is_refused(name: str):
    wrong: dict[str, Any] = SIZES | {name: 1.5}
    with pytest.raises(ValueError, match=rf"policy\.{name} \(1\.5\) must be between 0 and 1"):
        ActorCritic(DIM, 1, ACTION, 2, **wrong)
