"""Adam on actions, against PyTorch's on one plan at a time."""

import numpy as np
import pytest
import torch
from torch import Tensor

from wmbench.planning.adam import Adam
from wmbench.planning.noise import KeyedNoise

B, S, H, A = 2, 5, 3, 4
BOTTOM = torch.linspace(-1, 2, B * H * A).reshape(B, H, A)
GUESS = torch.full((B, H, A), 0.3)


def bumpy(plans: Tensor, bottom: Tensor = BOTTOM) -> Tensor:
    """A bowl with ripples, so that starts end in different places."""
    away = plans - bottom[:, None]
    return (away.square() - torch.cos(9 * away)).sum((2, 3))


def search(num_iters: int, lr: float) -> tuple[Tensor, list[Tensor]]:
    """The plan and the plans scored after each step."""
    scored = []

    def cost(plans: Tensor) -> Tensor:
        scored.append(plans.detach().clone())
        return bumpy(plans)

    with torch.no_grad():
        found = Adam(S, num_iters, init_std=0.7, lr=lr)(cost, GUESS, KeyedNoise(1, np.arange(B), 0))
    return found, scored


def test_every_start_of_every_task_takes_the_steps_of_pytorchs_adam_on_it_alone():
    _, scored = search(num_iters=6, lr=0.2)
    assert len(scored) == 7
    for task in range(B):
        for start in range(S):
            plan = scored[0][task, start].clone().requires_grad_()
            adam = torch.optim.Adam([plan], lr=0.2)
            for plans in scored[1:]:
                adam.zero_grad()
                bumpy(plan[None, None], BOTTOM[[task]]).sum().backward()
                adam.step()
                torch.testing.assert_close(plans[task, start], plan.detach())


def test_a_first_step_is_lr_against_the_gradients_sign():
    _, (start, after) = search(num_iters=1, lr=0.2)
    gradient = torch.func.grad(lambda plans: bumpy(plans).sum())(start)
    torch.testing.assert_close(after, start - 0.2 * gradient.sign())


def test_the_first_start_is_the_guess_and_the_others_lie_around_it():
    _, scored = search(num_iters=1, lr=0.2)
    drawn = KeyedNoise(1, np.arange(B), 0)(0, (S, H, A), torch.device("cpu"))
    assert torch.equal(scored[0][:, 0], GUESS)
    torch.testing.assert_close(scored[0][:, 1:], GUESS[:, None] + 0.7 * drawn[:, 1:])


@pytest.mark.parametrize("lr", [0.05, 3.0])  # the latter is too large: plans get worse
def test_the_cheapest_plan_of_all_starts_and_steps_is_returned(lr: float):
    found, scored = search(num_iters=8, lr=lr)
    plans = torch.cat(scored, 1)
    best = bumpy(plans).argmin(1)
    assert torch.equal(found, plans[torch.arange(B), best])
