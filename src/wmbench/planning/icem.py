"""Improved cross-entropy method: coloured noise, kept elites, fewer samples with every iteration."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from wmbench.planning.budget import Budget, Limit
from wmbench.planning.noise import KeyedNoise, coloured
from wmbench.planning.planner import Bounds, Cost, Planner, cheapest, nothing, within


class ICEM(Planner):
    """iCEM (Pinneri et al. 2020, arXiv 2008.06389), except for three things.

    It returns the mean of the elites: the paper, which plans in the simulator, executes the cheapest plan, and a learned
    model errs most in favour of that one (docs/planners.md has figures). The mean therefore competes only in the first
    iteration, where it is what is left of the last plan; nothing else is kept between plans. Elites that are kept within a
    plan are not scored again, as the model gives the same answer.

    Args:
        noise_beta: power of the noise falls with frequency**-noise_beta along a plan's actions; 0 is white.
        frameskip: actions in a block of the plan.
        sample_decay: each iteration draws this many times fewer samples (the paper's gamma), but twice num_elites at least.
        kept_fraction: of the elites that compete again in the next iteration (xi).
        momentum: share of the old mean and standard deviation in the new (alpha).

    Raises:
        ValueError: settings out of range.
    """

    def __init__(
        self,
        num_samples: int,
        num_elites: int,
        num_iters: int,
        init_std: int | float,
        noise_beta: int | float,
        frameskip: int,
        sample_decay: int | float,
        kept_fraction: int | float,
        momentum: int | float,
        budget: Limit = None,
    ):
        if not 2 <= num_elites <= num_samples / 2:
            raise ValueError(
                f"planner.num_elites ({num_elites}) must be at least 2 and at most half of num_samples ({num_samples})"
            )
        for name, value, is_sound, rule in (
            ("noise_beta", noise_beta, 0 <= noise_beta < math.inf, "must not be negative"),
            ("sample_decay", sample_decay, 1 <= sample_decay < math.inf, "must be at least 1"),
            ("kept_fraction", kept_fraction, 0 <= kept_fraction <= 1, "must be in [0, 1]"),
            ("momentum", momentum, 0 <= momentum < 1, "must be in [0, 1)"),
        ):
            if not is_sound:
                raise ValueError(f"planner.{name} ({value}) {rule}")

        def population(iteration: int) -> int:
            return max(int(num_samples * sample_decay**-iteration), 2 * num_elites)

        super().__init__(num_samples, init_std, Budget(budget, num_iters, population))
        self.population, self.num_elites, self.num_kept = population, num_elites, int(kept_fraction * num_elites)
        self.init_std, self.noise_beta, self.frameskip, self.momentum = init_std, noise_beta, frameskip, momentum

    def __call__(
        self, cost: Cost, mean: Float[Tensor, "B H A"], noise: KeyedNoise, bounds: Bounds = None
    ) -> Float[Tensor, "B H A"]:
        std = mean.new_full(mean.shape, self.init_std)
        kept = nothing(mean)
        for iteration in self.budget.iterations(len(mean)):
            white = noise(iteration, (self.population(iteration), *mean.shape[1:]), torch.device("cpu"))
            steps = coloured(rearrange(white, "b s h (f a) -> b s (h f) a", f=self.frameskip), self.noise_beta)
            drawn = rearrange(steps, "b s (h f) a -> b s h (f a)", f=self.frameskip).to(mean.device)
            plans = mean[:, None] + std[:, None] * drawn
            if iteration == 0:
                plans[:, 0] = mean
            plans = within(bounds, plans)
            elites, costs = cheapest(self.num_elites, kept, (plans, cost(plans)))
            mean = self.momentum * mean + (1 - self.momentum) * elites.mean(1)
            std = self.momentum * std + (1 - self.momentum) * elites.std(1)
            kept = elites[:, : self.num_kept], costs[:, : self.num_kept]
        return within(bounds, mean)
