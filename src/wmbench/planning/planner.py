"""What every planner shares: it sees cost(plans) and nothing else."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.planning.budget import Budget
from wmbench.planning.noise import KeyedNoise

Cost = Callable[[Tensor], Tensor]  # plans (B S H A) -> (B S)
Bounds = tuple[Float[Tensor, " A"], Float[Tensor, " A"]] | None  # lowest and highest normalised action
Scored = tuple[Float[Tensor, "B _ H A"], Float[Tensor, "B _"]]  # plans and their costs


class Planner(ABC):
    """Settings of a planner; nothing but the count of its evaluations outlives a plan.

    Args:
        num_samples: plans scored together for each task, at most.
        init_std: of samples around the first guess, in normalised action units; None for a planner that takes none.
    """

    needs_gradients = False

    def __init__(self, num_samples: int, init_std: int | float | None, budget: Budget):
        if num_samples < 1:
            raise ValueError(f"planner.num_samples ({num_samples}) must be positive")
        if init_std is not None and not 0 < init_std < math.inf:  # as for every number here: nan is none
            raise ValueError(f"planner.init_std ({init_std}) must be positive")
        self.num_samples, self.budget = num_samples, budget

    @property
    def num_evaluations(self) -> int:
        """Plans scored for each task; one that is differentiated counts three times: backward costs two forward passes."""
        return self.budget.num_evaluations

    def first_guess(self, zero: Float[Tensor, "B H A"], noise: KeyedNoise) -> Float[Tensor, "B H A"]:
        """What a plan without a warm start begins with: the mean action; `zero` is the one that does nothing."""
        return torch.zeros_like(zero)

    @abstractmethod
    def __call__(
        self, cost: Cost, mean: Float[Tensor, "B H A"], noise: KeyedNoise, bounds: Bounds = None
    ) -> Float[Tensor, "B H A"]:
        """The plan for each task, from a first guess.

        Args:
            bounds: every plan is clamped between these; None leaves them free, as the original does.
        """


def within(bounds: Bounds, plans: Float[Tensor, "... A"]) -> Float[Tensor, "... A"]:
    return plans if bounds is None else plans.clamp(*bounds)


def nothing(mean: Float[Tensor, "B H A"]) -> Scored:
    """No plans yet."""
    return mean.new_zeros(len(mean), 0, *mean.shape[1:]), mean.new_zeros(len(mean), 0)


def cheapest(number: int, *scored: Scored) -> Scored:
    """The `number` best plans of each task and their costs, the best first."""
    plans, costs = (torch.cat(parts, dim=1) for parts in zip(*scored, strict=True))
    best = costs.topk(number, dim=1, largest=False)
    return plans.gather(1, best.indices[:, :, None, None].expand(-1, -1, *plans.shape[2:])), best.values
