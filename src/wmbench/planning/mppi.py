"""Model-predictive path integral control: every sample counts, the cheaper the more."""

import math

from jaxtyping import Float
from torch import Tensor

from wmbench.planning.budget import Budget, Limit
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.planner import Bounds, Cost, Planner, within


class MPPI(Planner):
    """Moves the mean to the samples' average, weighted by exp(-cost / temperature) (Williams et al. 2017), and returns it.

    Their cost of control, which a goal distance has none of, is left out.

    Args:
        temperature: in standard deviations of a task's costs in this iteration, since encoders differ in the scale of their
            latents. Towards 0 the cheapest sample is all that counts; far above 1 all count alike.
        std_decay: factor on the standard deviation after each iteration; 1 keeps it, as the original does.

    Raises:
        ValueError: settings out of range.
    """

    def __init__(
        self,
        num_samples: int,
        num_iters: int,
        init_std: int | float,
        temperature: int | float,
        std_decay: int | float,
        budget: Limit = None,
    ):
        if num_samples < 2:
            raise ValueError(f"planner.num_samples ({num_samples}) must be at least 2: their costs are compared")
        if not 0 < temperature < math.inf:
            raise ValueError(f"planner.temperature ({temperature}) must be positive")
        if not 0 < std_decay <= 1:
            raise ValueError(f"planner.std_decay ({std_decay}) must be above 0 and at most 1")
        super().__init__(num_samples, init_std, Budget(budget, num_iters, lambda iteration: num_samples))
        self.init_std, self.temperature, self.std_decay = init_std, temperature, std_decay

    def __call__(
        self, cost: Cost, mean: Float[Tensor, "B H A"], noise: KeyedNoise, bounds: Bounds = None
    ) -> Float[Tensor, "B H A"]:
        for iteration in self.budget.iterations(len(mean)):
            drawn = noise(iteration, (self.num_samples, *mean.shape[1:]), mean.device)
            plans = mean[:, None] + self.init_std * self.std_decay**iteration * drawn
            plans[:, 0] = mean  # the current best guess competes too
            plans = within(bounds, plans)
            costs = cost(plans)
            scale = costs.std(1, keepdim=True).clamp_min(1e-30)  # equal costs weigh alike
            weights = ((costs.amin(1, keepdim=True) - costs) / (self.temperature * scale)).softmax(1)
            mean = (weights[:, :, None, None] * plans).sum(1)
        return mean
