"""Gradient descent on the actions themselves, as DINO-WM does it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.planning.budget import Budget, Limit
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.planner import Bounds, Cost, Planner, within

STARTS = ("randn", "zero")


class GradientDescent(Planner):
    """One plan per task, moved against its cost's gradient with a little noise; the last one is returned.

    The costs of all tasks are summed, so a task's step does not depend on how many are planned together.

    Args:
        lr: step size on normalised actions.
        action_noise: standard deviation of the noise added at each step.
        start: a plan's first guess: `randn` samples it, `zero` does nothing; a warm start takes its place.

    Raises:
        ValueError: settings out of range.
    """

    needs_gradients = True

    def __init__(self, num_iters: int, lr: int | float, action_noise: int | float, start: str, budget: Limit = None):
        if not 0 < lr < math.inf:
            raise ValueError(f"planner.lr ({lr}) must be positive")
        if not 0 <= action_noise < math.inf:
            raise ValueError(f"planner.action_noise ({action_noise}) must not be negative")
        if start not in STARTS:
            raise ValueError(f"planner.start: unknown start {start!r}; known: {', '.join(STARTS)}")
        super().__init__(1, None, Budget(budget, num_iters, lambda iteration: 3))
        self.lr, self.action_noise, self.start = lr, action_noise, start

    def first_guess(self, zero: Float[Tensor, "B H A"], noise: KeyedNoise) -> Float[Tensor, "B H A"]:
        """What a plan without a warm start begins with; `zero` is the normalised action that does nothing."""
        return noise(0, tuple(zero.shape[1:]), zero.device) if self.start == "randn" else zero

    @torch.enable_grad()
    def __call__(
        self, cost: Cost, mean: Float[Tensor, "B H A"], noise: KeyedNoise, bounds: Bounds = None
    ) -> Float[Tensor, "B H A"]:
        plan = within(bounds, mean.detach())
        for iteration in self.budget.iterations(len(mean)):
            plan.requires_grad_()
            (gradient,) = torch.autograd.grad(cost(plan[:, None]).sum(), plan)
            drawn = noise(1 + iteration, tuple(plan.shape[1:]), plan.device)
            plan = within(bounds, (plan - self.lr * gradient + self.action_noise * drawn).detach())
        return plan
