"""Cross-entropy method over action sequences."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.planning.noise import KeyedNoise

Cost = Callable[[Tensor], Tensor]  # plans (B S H A) -> (B S)


class CEM:
    """Sample plans around a mean, refit mean and standard deviation to the cheapest, return the mean (DINO-WM's CEM).

    Args:
        init_std: first standard deviation, in normalised action units.

    Raises:
        ValueError: more elites than samples, or fewer than two (their standard deviation needs two).
    """

    needs_gradients = False

    def __init__(self, num_samples: int, num_elites: int, num_iters: int, init_std: float):
        if num_elites > num_samples:
            raise ValueError(f"num_elites ({num_elites}) must not exceed num_samples ({num_samples})")
        if num_elites < 2:
            raise ValueError(f"num_elites ({num_elites}) must be at least 2")
        if init_std <= 0:
            raise ValueError(f"init_std ({init_std}) must be positive")
        if num_iters < 1:
            raise ValueError(f"num_iters ({num_iters}) must be positive")
        self.num_samples, self.num_elites, self.num_iters, self.init_std = num_samples, num_elites, num_iters, init_std

    @property
    def num_evaluations(self) -> int:
        """Plans scored for each task."""
        return self.num_samples * self.num_iters

    def first_guess(self, zero: Float[Tensor, "B H A"], noise: KeyedNoise) -> Float[Tensor, "B H A"]:
        """What a plan without a warm start begins with: the mean action, as in the original."""
        return torch.zeros_like(zero)

    def __call__(
        self,
        cost: Cost,
        mean: Float[Tensor, "B H A"],
        noise: KeyedNoise,
        bounds: tuple[Float[Tensor, " A"], Float[Tensor, " A"]] | None = None,
    ) -> Float[Tensor, "B H A"]:
        """The plan for each task, from a first guess.

        Args:
            bounds: samples are clamped between these; None leaves them free, as the original does.
        """
        std = mean.new_full(mean.shape, self.init_std)
        for iteration in range(self.num_iters):
            drawn = noise(iteration, (self.num_samples, *mean.shape[1:]), mean.device)
            plans = mean[:, None] + std[:, None] * drawn
            plans[:, 0] = mean  # the current best guess competes too
            if bounds is not None:
                plans = plans.clamp(*bounds)
            order = cost(plans).topk(self.num_elites, dim=1, largest=False).indices
            elites = plans.gather(1, order[:, :, None, None].expand(-1, -1, *plans.shape[2:]))
            mean, std = elites.mean(1), elites.std(1)
        return mean
