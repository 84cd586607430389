"""One plan for each task, made open loop against any cost, and every plan that was looked at on the way."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.planning.agent import Dynamics, limits
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.planner import Cost, Planner


@dataclass
class Recorded:
    """A cost that remembers each call's plans (B S H A) and costs (B S), on the CPU."""

    cost: Cost
    plans: list[Tensor] = field(default_factory=list)
    costs: list[Tensor] = field(default_factory=list)

    def __call__(self, plans: Tensor) -> Tensor:
        costs = self.cost(plans)
        self.plans.append(plans.detach().cpu())
        self.costs.append(costs.detach().cpu())
        return costs

    def best_so_far(self) -> tuple[Float[Tensor, "B K H A"], Float[Tensor, "B K"]]:
        """The cheapest plan of each task after each of K calls, and its cost."""
        best, costs = [], []
        for plans, scored in zip(self.plans, self.costs, strict=True):
            cost, index = scored.min(1)
            plan = plans[torch.arange(len(plans)), index]
            if best:
                is_better = cost < costs[-1]
                plan = torch.where(is_better[:, None, None], plan, best[-1])
                cost = torch.minimum(cost, costs[-1])
            best.append(plan)
            costs.append(cost)
        return torch.stack(best, 1), torch.stack(costs, 1)


@torch.no_grad()
def plan_tasks(
    model: Dynamics, planner: Planner, cost: Cost, num_tasks: int, horizon: int, seed: int, device: torch.device
) -> Float[Tensor, "B H A"]:
    """Plans of `horizon` normalised blocks within the actuator's range, from nothing, the same with others or without."""
    noise, bounds = KeyedNoise(seed, np.arange(num_tasks), 0), limits(model, device)
    zero = model.normalizer.normalize_action(torch.zeros(num_tasks, horizon, len(bounds[0]), device=device))
    return planner(cost, planner.first_guess(zero, noise), noise, bounds).clamp(*bounds)
