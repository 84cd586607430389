"""Costs and gradients of plans, a few rollouts after another."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.state import State
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.planning.memory import peak_bytes
from wmbench.planning.objective import Objective
from wmbench.planning.rollout_cost import RolloutCost

TASKS, SAMPLES, HORIZON, ACTION = 3, 5, 4, 2
Z, GOAL = torch.randn(TASKS, 1, 1, ACTION), torch.randn(TASKS, 1, ACTION)
NOTHING = torch.zeros(TASKS, 0, ACTION)


class Curved:
    """A latent that every action bends, over many steps whose graph a gradient needs."""

    frameskip, normalizer = 1, SimpleNamespace(action_mean=torch.zeros(ACTION))
    most = 10**6  # rollouts whose gradients fit

    def split(self, z: Tensor) -> tuple[Tensor, None]:
        return z, None

    def rollout(self, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
        latent = z[:, -1:].expand(-1, plans.shape[1], -1, -1)
        latents = []
        for step in range(plans.shape[2]):
            for _ in range(10):
                latent = torch.sin(latent + plans[:, :, step, None] ** 2)
            latents.append(latent)
        rolled_out = torch.stack(latents, 2)
        if rolled_out.requires_grad:
            rolled_out.register_hook(self.fail)
        return rolled_out

    def fail(self, gradient: Tensor) -> None:
        if gradient.shape[0] * gradient.shape[1] > self.most:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def costs_of(at_once: int, model: Any = None) -> RolloutCost:
    sizes = {"num_context": 1, "horizon": HORIZON, "memory_gb": 1, "has_gradients": True}
    costs = RolloutCost(model or Curved(), Objective(), **sizes)
    costs._room = at_once
    return costs


def slopes(costs: RolloutCost, plans: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    leaf = plans.clone().requires_grad_()
    found = costs.of(Z, NOTHING, GOAL)(leaf)
    return found.detach(), torch.autograd.grad((weight * found).sum(), leaf)[0]


@pytest.mark.parametrize("at_once", [1, 2, 5, 7, 10])
def test_gradients_of_a_few_rollouts_after_another_are_those_of_all_at_once(at_once: int):
    plans, weight = torch.randn(TASKS, SAMPLES, HORIZON, ACTION), torch.rand(TASKS, SAMPLES)
    leaf = plans.clone().requires_grad_()
    model = Curved()
    whole = Objective()(model, Z[:, -1], model.rollout(Z, NOTHING, leaf), GOAL)
    (expected,) = torch.autograd.grad((weight * whole).sum(), leaf)
    found, gradient = slopes(costs_of(at_once), plans, weight)
    torch.testing.assert_close(found, whole.detach())
    torch.testing.assert_close(gradient, expected)


def test_a_graph_ends_with_its_chunk():
    plans, weight = torch.randn(TASKS, 100, HORIZON, ACTION), torch.ones(TASKS, 100)
    few, all_of_them = (
        peak_bytes(lambda at_once=at_once: slopes(costs_of(at_once), plans, weight), torch.device("cpu"))
        for at_once in (5, 300)
    )
    assert few < all_of_them / 2  # costs and gradients of all are kept, of which a plan has as many numbers as a frame here


def test_a_gradient_for_which_memory_lacks_is_computed_in_halves():
    plans, weight = torch.randn(TASKS, SAMPLES, HORIZON, ACTION), torch.ones(TASKS, SAMPLES)
    small = Curved()
    small.most = 4
    costs = costs_of(15, small)
    expected, found = slopes(costs_of(15), plans, weight), slopes(costs, plans, weight)
    assert costs._room == 3
    torch.testing.assert_close(found, expected)


def test_plans_that_nobody_differentiates_have_costs_alone():
    plans = torch.randn(TASKS, SAMPLES, HORIZON, ACTION)
    assert not costs_of(3).of(Z, NOTHING, GOAL)(plans).requires_grad
    with torch.no_grad():
        assert not costs_of(3).of(Z, NOTHING, GOAL)(plans.requires_grad_()).requires_grad


def test_a_rollout_that_does_not_fit_alone_is_refused_with_what_to_lower():
    small = Curved()
    small.most = 0
    with pytest.raises(ValueError, match=r"a single rollout of 4 blocks does not fit .*ALLOC_FAILED.*; lower agent.horizon"):
        slopes(costs_of(2, small), torch.randn(TASKS, SAMPLES, HORIZON, ACTION), torch.ones(TASKS, SAMPLES))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_costs_that_are_not_finite_are_told_once_for_a_whole_plan(value: float):
    costs, plans = costs_of(3), torch.zeros(TASKS, SAMPLES, HORIZON, ACTION)
    score = costs.of(Z, NOTHING, GOAL)
    score(plans)
    costs.check()
    plans[1, 2, 0, 0] = value
    score(plans)
    score(torch.zeros_like(plans))
    with pytest.raises(ValueError, match="costs of plans are NaN or Inf: its weights or tokens are"):
        costs.check()


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_how_many_run_at_once_changes_costs_by_rounding_alone(at_once: int):
    """What agent.memory_gb decides; to 1e-5, and on a CPU mostly not at all."""
    torch.manual_seed(0)
    predictor = FrameCausalViT(4, 3, 2, ACTION, 3, depth=2, num_heads=2, head_dim=6, mlp_dim=11, dropout=0.0)
    blank = Normalizer(torch.zeros(ACTION), torch.ones(ACTION), torch.zeros(4), torch.ones(4))
    told = {"proprio": "none", "proprio_embed_dim": 1, "frameskip": 1, "num_hist": 2}
    model = WorldModel(State(4, 1.0, 0), predictor, blank, **told).eval().requires_grad_(False)
    z, plans = torch.randn(TASKS, 2, 3, 4), torch.randn(TASKS, SAMPLES, HORIZON, ACTION)
    found, expected = (costs_of(n, model).of(z, torch.ones(TASKS, 1, ACTION), z[:, 0])(plans) for n in (at_once, 100))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
