"""Random shooting: the best of many random plans."""

from jaxtyping import Float
from torch import Tensor

from wmbench.planning.budget import Budget, Limit
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.planner import Bounds, Cost, Planner, cheapest, nothing, within


class RandomShooting(Planner):
    """Draws num_samples plans around the first guess, num_iters times, and returns the cheapest; the guess competes."""

    def __init__(self, num_samples: int, num_iters: int, init_std: int | float, budget: Limit = None):
        super().__init__(num_samples, init_std, Budget(budget, num_iters, lambda iteration: num_samples))
        self.init_std = init_std

    def __call__(
        self, cost: Cost, mean: Float[Tensor, "B H A"], noise: KeyedNoise, bounds: Bounds = None
    ) -> Float[Tensor, "B H A"]:
        best = nothing(mean)
        for iteration in self.budget.iterations(len(mean)):
            drawn = noise(iteration, (self.num_samples, *mean.shape[1:]), mean.device)
            plans = mean[:, None] + self.init_std * drawn
            if iteration == 0:
                plans[:, 0] = mean
            plans = within(bounds, plans)
            best = cheapest(1, best, (plans, cost(plans)))
        return best[0][:, 0]
