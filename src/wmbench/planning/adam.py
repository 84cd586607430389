"""Adam on the actions themselves, from several starts."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.planning.budget import Budget, Limit
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.planner import Bounds, Cost, Planner, cheapest, within


class Adam(Planner):
    """Several plans per task, moved by Adam (Kingma and Ba 2015); the cheapest that any of them came by is returned.

    The first starts at the first guess, the others around it. Adam moves each action separately, so a plan's steps depend
    neither on the other starts nor on the tasks planned together.

    Args:
        num_samples: starts.
        num_iters: steps.
        init_std: of the other starts around the first guess, in normalised action units.
        lr: step size on normalised actions.

    Raises:
        ValueError: settings out of range.
    """

    needs_gradients = True

    def __init__(self, num_samples: int, num_iters: int, init_std: int | float, lr: int | float, budget: Limit = None):
        if not 0 < lr < math.inf:
            raise ValueError(f"planner.lr ({lr}) must be positive")
        # Each step is a backward and a forward pass; the first step also scores the starts.
        super().__init__(num_samples, init_std, Budget(budget, num_iters, lambda k: (3 + (k == 0)) * num_samples))
        self.init_std, self.lr = init_std, lr

    @torch.enable_grad()
    def __call__(
        self, cost: Cost, mean: Float[Tensor, "B H A"], noise: KeyedNoise, bounds: Bounds = None
    ) -> Float[Tensor, "B H A"]:
        drawn = noise(0, (self.num_samples, *mean.shape[1:]), mean.device)
        drawn[:, 0] = 0
        plans = within(bounds, mean[:, None] + self.init_std * drawn).requires_grad_()
        adam = torch.optim.Adam([plans], lr=self.lr)
        costs = cost(plans)
        best, best_costs = plans.detach().clone(), costs.detach()
        for _ in self.budget.iterations(len(mean)):
            (plans.grad,) = torch.autograd.grad(costs.sum(), plans)
            adam.step()
            plans.data = within(bounds, plans.data)
            costs = cost(plans)
            is_better = costs < best_costs
            best = torch.where(is_better[:, :, None, None], plans, best).detach()
            best_costs = torch.minimum(costs, best_costs).detach()
        return cheapest(1, (best, best_costs))[0][:, 0]
