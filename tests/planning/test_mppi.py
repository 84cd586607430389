"""MPPI against its formula and the formula's limits."""

import numpy as np
import torch
from torch import Tensor

from wmbench.planning.mppi import MPPI
from wmbench.planning.noise import KeyedNoise

B, S, H, A = 2, 50, 3, 4
BOTTOM = torch.linspace(-1, 2, B * H * A).reshape(B, H, A)


def bowl(plans: Tensor) -> Tensor:
    return (plans - BOTTOM[:, None]).square().sum((2, 3))


def search(cost=bowl, num_iters: int = 1, temperature: float = 0.5, std_decay: float = 1.0) -> tuple[Tensor, list[Tensor]]:
    """The plan from zero and the plans scored in each iteration."""
    scored = []

    def scoring(plans: Tensor) -> Tensor:
        scored.append(plans)
        return cost(plans)

    planner = MPPI(S, num_iters, init_std=1.5, temperature=temperature, std_decay=std_decay)
    return planner(scoring, torch.zeros(B, H, A), KeyedNoise(1, np.arange(B), 0)), scored


def test_a_plan_is_the_samples_mean_weighted_by_the_exponential_of_their_costs():
    found, (plans,) = search()
    costs = bowl(plans).double().numpy()
    weights = np.exp(-costs / (0.5 * costs.std(1, ddof=1, keepdims=True)))
    expected = np.einsum("bs,bsha->bha", weights / weights.sum(1, keepdims=True), plans.numpy())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_temperature_towards_zero_takes_the_best_sample():
    found, (plans,) = search(temperature=1e-6)
    best = bowl(plans).argmin(1)
    torch.testing.assert_close(found, plans[torch.arange(B), best])


def test_a_temperature_towards_infinity_takes_the_plain_mean():
    found, (plans,) = search(temperature=1e6)
    torch.testing.assert_close(found, plans.mean(1), rtol=0, atol=1e-5)


def test_neither_scale_nor_origin_of_the_cost_matters():
    found, _ = search(num_iters=3)
    torch.testing.assert_close(search(lambda plans: 1000 * bowl(plans) + 7, num_iters=3)[0], found, rtol=1e-3, atol=1e-4)


def test_equal_costs_weigh_alike():
    found, (plans,) = search(lambda plans: torch.full(plans.shape[:2], 3.0))
    torch.testing.assert_close(found, plans.mean(1))


def test_the_next_iteration_draws_around_the_mean_with_a_falling_deviation():
    found, scored = search(lambda plans: torch.zeros(plans.shape[:2]), num_iters=3, std_decay=0.5)
    means = [torch.zeros(B, H, A), *(plans.mean(1) for plans in scored)]
    noise = KeyedNoise(1, np.arange(B), 0)
    for k, plans in enumerate(scored):
        torch.testing.assert_close(plans[:, 0], means[k])
        drawn = noise(k, (S, H, A), torch.device("cpu"))[:, 1:]
        torch.testing.assert_close(plans[:, 1:], means[k][:, None] + 1.5 * 0.5**k * drawn)
    torch.testing.assert_close(found, means[-1])
