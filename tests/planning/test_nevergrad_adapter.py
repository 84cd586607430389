"""Optimisers of the nevergrad library behind the planners' call."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from wmbench.planning.external import Nevergrad
from wmbench.planning.noise import KeyedNoise

B, S, H, A = 2, 6, 3, 4
BOTTOM = torch.linspace(-1, 2, B * H * A).reshape(B, H, A)


def search(optimizer: str, seed: int = 1, plan: int = 0, start: float = 0.0) -> tuple[Tensor, Tensor]:
    """The plan and all plans that were scored."""
    scored = []

    def cost(plans: Tensor) -> Tensor:
        scored.append(plans)
        return bowl(plans)

    planner = Nevergrad(optimizer, num_samples=S, num_iters=3, init_std=0.5)
    found = planner(cost, torch.full((B, H, A), start), KeyedNoise(seed, np.arange(B), plan))
    assert [plans.shape for plans in scored] == [(B, S, H, A)] * 3  # all tasks' candidates in one call
    return found, torch.cat(scored, 1)


def bowl(plans: Tensor) -> Tensor:
    return (plans - BOTTOM[:, None]).square().sum((2, 3))


@pytest.mark.parametrize("optimizer", ["CMA", "DiagonalCMA", "TwoPointsDE", "PSO", "OnePlusOne"])
def test_the_cheapest_of_the_plans_is_returned_and_the_first_guess_is_one_of_them(optimizer: str):
    found, scored = search(optimizer, start=0.25)
    assert torch.equal(found, scored[torch.arange(B), bowl(scored).argmin(1)])
    assert (scored[:, 0] == 0.25).all()


def test_seed_task_and_plan_decide_what_an_optimiser_draws():
    _, first = search("CMA")
    assert torch.equal(search("CMA")[1], first)
    others = [search("CMA", seed=2)[1], search("CMA", plan=1)[1], first.flip(0)]
    assert all(not torch.isclose(other[:, 1:], first[:, 1:]).all((2, 3)).any() for other in others)


def test_an_unknown_optimiser_is_refused_with_near_names():
    with pytest.raises(ValueError, match=r"unknown nevergrad optimizer 'DiagonalCMAA'; near it: .*DiagonalCMA"):
        Nevergrad("DiagonalCMAA", 6, 3, 0.5)


def test_where_the_library_is_missing_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "nevergrad", None)
    with pytest.raises(ModuleNotFoundError, match="pip install nevergrad"):
        Nevergrad("CMA", 6, 3, 0.5)
