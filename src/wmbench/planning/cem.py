"""Cross-entropy method over action sequences."""

from jaxtyping import Float
from torch import Tensor

from wmbench.planning.budget import Budget, Limit
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.planner import Bounds, Cost, Planner, cheapest, within


class CEM(Planner):
    """Sample plans around a mean, refit mean and standard deviation to the cheapest, return the mean (DINO-WM's CEM).

    Raises:
        ValueError: more elites than samples, or fewer than two (their standard deviation needs two).
    """

    def __init__(self, num_samples: int, num_elites: int, num_iters: int, init_std: int | float, budget: Limit = None):
        if num_elites > num_samples:
            raise ValueError(f"planner.num_elites ({num_elites}) must not exceed num_samples ({num_samples})")
        if num_elites < 2:
            raise ValueError(f"planner.num_elites ({num_elites}) must be at least 2")
        super().__init__(num_samples, init_std, Budget(budget, num_iters, lambda iteration: num_samples))
        self.num_elites, self.init_std = num_elites, init_std

    def __call__(
        self, cost: Cost, mean: Float[Tensor, "B H A"], noise: KeyedNoise, bounds: Bounds = None
    ) -> Float[Tensor, "B H A"]:
        std = mean.new_full(mean.shape, self.init_std)
        for iteration in self.budget.iterations(len(mean)):
            drawn = noise(iteration, (self.num_samples, *mean.shape[1:]), mean.device)
            plans = mean[:, None] + std[:, None] * drawn
            plans[:, 0] = mean  # the current best guess competes too
            plans = within(bounds, plans)
            elites, _ = cheapest(self.num_elites, (plans, cost(plans)))
            mean, std = elites.mean(1), elites.std(1)
        return mean
