"""Any optimiser of the nevergrad library as a planner."""

import difflib
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.planning.budget import Budget, Limit
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.planner import Bounds, Cost, Planner, cheapest, nothing


class Nevergrad(Planner):
    """One optimiser per task, asked for num_samples plans at a time; returns the cheapest plan that it scored.

    Args:
        optimizer: a name in nevergrad's registry, such as CMA, TwoPointsDE, PSO or NGOpt.
        init_std: of its first mutations, in normalised action units.

    Raises:
        ModuleNotFoundError: nevergrad is not installed.
        ValueError: no optimiser of that name, or settings out of range.
    """

    def __init__(self, optimizer: str, num_samples: int, num_iters: int, init_std: int | float, budget: Limit = None):
        registry = library().optimizers.registry
        if optimizer not in registry:
            near = difflib.get_close_matches(optimizer, list(registry), n=5, cutoff=0.3)
            raise ValueError(
                f"planner.optimizer: unknown nevergrad optimizer {optimizer!r}; near it: {', '.join(near) or 'none'}"
            )
        super().__init__(num_samples, init_std, Budget(budget, num_iters, lambda iteration: num_samples))
        self.optimizer, self.init_std = registry[optimizer], init_std

    def __call__(
        self, cost: Cost, mean: Float[Tensor, "B H A"], noise: KeyedNoise, bounds: Bounds = None
    ) -> Float[Tensor, "B H A"]:
        optimizers = [
            self._optimizer(guess, seed, bounds) for guess, seed in zip(mean.cpu().double(), noise.seeds(), strict=True)
        ]
        best = nothing(mean)
        for _ in self.budget.iterations(len(mean)):
            asked = [[optimizer.ask() for _ in range(self.num_samples)] for optimizer in optimizers]
            plans = torch.from_numpy(np.array([[candidate.value for candidate in row] for row in asked])).to(mean)
            costs = cost(plans)
            best = cheapest(1, best, (plans, costs))
            for optimizer, row, losses in zip(optimizers, asked, costs.tolist(), strict=True):
                for candidate, loss in zip(row, losses, strict=True):
                    optimizer.tell(candidate, loss)
        return best[0][:, 0]

    def _optimizer(self, guess: Float[Tensor, "H A"], seed: int, bounds: Bounds) -> Any:
        array = library().p.Array
        if bounds is None:
            plan = array(init=guess.numpy())
        else:
            low, high = (limit.cpu().double().expand(guess.shape).numpy() for limit in bounds)
            plan = array(init=guess.numpy().clip(low, high)).set_bounds(low, high, full_range_sampling=False)
        plan.set_mutation(sigma=self.init_std)
        plan.random_state.seed(seed)
        optimizer = self.optimizer(plan, budget=self.num_evaluations, num_workers=self.num_samples)
        optimizer.suggest(plan.value)  # the first guess competes too
        return optimizer


def library() -> Any:
    try:
        import nevergrad
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("planner=nevergrad needs a library: pip install nevergrad") from error
    return nevergrad
