"""Gradient descent on actions, against a bowl whose descent is known in closed form."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from wmbench.planning.gradient import GradientDescent
from wmbench.planning.noise import KeyedNoise

B, H, A = 2, 3, 4
TARGET = torch.linspace(-2, 2, B * H * A).reshape(B, H, A)


def bowl(plans: Tensor) -> Tensor:
    return (plans - TARGET[:, None]).square().sum((2, 3))


def descend(cost: Callable[[Tensor], Tensor] = bowl, bounds=None, **changed) -> Tensor:
    settings = {"num_iters": 5, "lr": 0.1, "action_noise": 0.0, "start": "zero"}
    planner = GradientDescent(**settings | changed)
    noise = KeyedNoise(3, np.arange(B), 0)
    return planner(cost, planner.first_guess(torch.zeros(B, H, A), noise), noise, bounds)


def test_each_step_goes_down_the_gradient_by_lr():
    """On a squared distance every step leaves 1 - 2 lr of the way."""
    torch.testing.assert_close(descend(), TARGET * (1 - (1 - 0.2) ** 5))


def test_it_descends_where_gradients_are_switched_off():
    with torch.no_grad():
        found = descend()
    torch.testing.assert_close(found, TARGET * (1 - 0.8**5))
    assert not found.requires_grad


def test_noise_of_the_given_size_is_added_at_every_step():
    """Without a slope a plan is the sum of its steps' noise."""
    found = descend(lambda plans: 0 * plans.sum((2, 3)), action_noise=0.5)
    noise = KeyedNoise(3, np.arange(B), 0)
    drawn = [noise(1 + k, (H, A), torch.device("cpu")) for k in range(5)]
    torch.testing.assert_close(found, 0.5 * torch.stack(drawn).sum(0))


def test_a_sampled_start_is_standard_normal_and_not_the_first_steps_noise():
    noise = KeyedNoise(3, np.arange(B), 0)
    zero = torch.zeros(B, 500, A)
    guess = GradientDescent(1, 0.1, 0.0, "randn").first_guess(zero, noise)
    assert abs(guess.mean()) < 0.05 and abs(guess.std() - 1) < 0.05
    assert not torch.equal(guess, noise(1, (500, A), torch.device("cpu")))


def test_it_does_not_matter_how_many_tasks_are_planned_together():
    together = descend(action_noise=0.3)
    planner, noise = GradientDescent(5, 0.1, 0.3, "zero"), KeyedNoise(3, np.array([1]), 0)
    alone = planner(lambda plans: (plans - TARGET[1:, None]).square().sum((2, 3)), torch.zeros(1, H, A), noise)
    torch.testing.assert_close(alone[0], together[1])


def test_plans_stay_within_the_bounds():
    low, high = torch.full((A,), -0.5), torch.full((A,), 0.3)
    found = descend(bounds=(low, high), num_iters=50)
    torch.testing.assert_close(found, TARGET.clamp(-0.5, 0.3))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_iters": 0}, r"num_iters \(0\) must be positive"),
        ({"lr": 0}, r"planner.lr \(0\) must be positive"),
        ({"action_noise": -1}, r"planner.action_noise \(-1\) must not be negative"),
        ({"start": "warm"}, "unknown start 'warm'; known: randn, zero"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(changed: dict, message: str):
    with pytest.raises(ValueError, match=message):
        descend(**changed)
