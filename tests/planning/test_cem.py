"""CEM on functions whose minimum is known; tests/models/test_golden_dino_wm.py compares it with the original's trace.

What it shares with the other planners is in test_planners.py.
"""

import pytest
import torch
from torch import Tensor

from wmbench.planning.cem import CEM
from wmbench.planning.noise import KeyedNoise

TASKS, HORIZON, ACTION = 3, 2, 4
BOTTOM = torch.randn(TASKS, HORIZON, ACTION, generator=torch.Generator().manual_seed(0))  # of each task's bowl


def bowl(plans: Tensor, bottom: Tensor = BOTTOM) -> Tensor:
    return (plans - bottom[:, None]).square().sum((2, 3))


def noise(tasks: list[int]) -> KeyedNoise:
    return KeyedNoise(seed=5, tasks=torch.tensor(tasks).numpy(), plan=0)


@pytest.fixture
def start() -> Tensor:
    return torch.zeros(TASKS, HORIZON, ACTION)


def test_it_finds_the_minimum_of_every_tasks_bowl(start: Tensor):
    found = CEM(num_samples=300, num_elites=30, num_iters=30, init_std=1.0)(bowl, start, noise([0, 1, 2]))
    torch.testing.assert_close(found, BOTTOM, rtol=0, atol=1e-3)


def test_bounded_plans_stay_inside_and_end_where_the_bowl_leads(start: Tensor):
    low, high = torch.tensor([-0.5, -0.4, -0.3, -0.2]), torch.tensor([0.2, 0.3, 0.4, 0.5])
    scored = []

    def cost(plans: Tensor) -> Tensor:
        scored.append(plans)
        return bowl(plans)

    planner = CEM(num_samples=300, num_elites=30, num_iters=30, init_std=1.0)
    found = planner(cost, start + 1, noise([0, 1, 2]), (low, high))  # the first guess lies outside
    assert all(((low <= plans) & (plans <= high)).all() for plans in scored)
    torch.testing.assert_close(found, BOTTOM.clamp(low, high), rtol=0, atol=1e-3)


def test_without_bounds_samples_spread_by_the_first_standard_deviation():
    scored = []

    def cost(plans: Tensor) -> Tensor:
        scored.append(plans)
        return plans.square().sum((2, 3))

    mean = torch.full((2, 3, 5), 40.0)
    CEM(num_samples=2000, num_elites=2, num_iters=1, init_std=7.0)(cost, mean, noise([0, 1]))
    torch.testing.assert_close(scored[0].mean(1), mean, rtol=0, atol=4 * 7 / 2000**0.5)  # four standard errors
    torch.testing.assert_close(scored[0].std(1), torch.full((2, 3, 5), 7.0), rtol=0, atol=4 * 7 / 4000**0.5)


def test_the_current_best_guess_competes_too(start: Tensor):
    scored = []

    def cost(plans: Tensor) -> Tensor:
        scored.append(plans)
        return bowl(plans)

    planner = CEM(num_samples=30, num_elites=5, num_iters=3, init_std=1.0)
    found = planner(cost, start + 0.5, noise([0, 1, 2]))
    means = [start + 0.5]
    for plans in scored:
        best = bowl(plans).argsort(1)[:, :5]
        means.append(torch.stack([plans[task, best[task]].mean(0) for task in range(TASKS)]))
    for plans, mean in zip(scored, means, strict=False):
        torch.testing.assert_close(plans[:, 0], mean)
    torch.testing.assert_close(found, means[-1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_elites": 40}, r"num_elites \(40\) must not exceed num_samples \(30\)"),
        ({"num_elites": 1}, r"num_elites \(1\) must be at least 2"),
        ({"num_iters": 0}, r"num_iters \(0\) must be positive"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(changed: dict, message: str):
    with pytest.raises(ValueError, match=message):
        CEM(**{"num_samples": 30, "num_elites": 5, "num_iters": 2, "init_std": 1.0} | changed)
