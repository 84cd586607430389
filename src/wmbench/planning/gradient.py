"""Gradient descent on the actions themselves, as DINO-WM does it."""

import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.planning.cem import Cost
from wmbench.planning.noise import KeyedNoise

STARTS = ("randn", "zero")


class GradientDescent:
    """One plan a task, moved against its cost's gradient with a little noise; the last one is returned.

    The costs of all tasks are summed, so a task's step does not depend on how many are planned together.

    Args:
        lr: step size on normalised actions.
        action_noise: standard deviation of the noise added at each step.
        start: a plan's first guess: `randn` samples it, `zero` does nothing; a warm start takes its place.

    Raises:
        ValueError: settings out of range.
    """

    needs_gradients = True
    num_samples = 1

    def __init__(self, num_iters: int, lr: int | float, action_noise: int | float, start: str):
        if num_iters < 1:
            raise ValueError(f"num_iters ({num_iters}) must be positive")
        if lr <= 0 or action_noise < 0:
            raise ValueError(f"lr ({lr}) must be positive and action_noise ({action_noise}) not negative")
        if start not in STARTS:
            raise ValueError(f"unknown start {start!r}; known: {', '.join(STARTS)}")
        self.num_iters, self.lr, self.action_noise, self.start = num_iters, lr, action_noise, start

    @property
    def num_evaluations(self) -> int:
        """Rollouts' worth of computing for each task: a backward pass costs two forward ones."""
        return 3 * self.num_iters

    def first_guess(self, zero: Float[Tensor, "B H A"], noise: KeyedNoise) -> Float[Tensor, "B H A"]:
        """What a plan without a warm start begins with; `zero` is the normalised action that does nothing."""
        return noise(0, tuple(zero.shape[1:]), zero.device) if self.start == "randn" else zero

    @torch.enable_grad()
    def __call__(
        self,
        cost: Cost,
        mean: Float[Tensor, "B H A"],
        noise: KeyedNoise,
        bounds: tuple[Float[Tensor, " A"], Float[Tensor, " A"]] | None = None,
    ) -> Float[Tensor, "B H A"]:
        """The plan for each task, from a first guess.

        Args:
            bounds: plans are clamped between these after each step; None leaves them free, as the original does.
        """
        plan = mean.detach()
        for iteration in range(self.num_iters):
            plan.requires_grad_()
            (gradient,) = torch.autograd.grad(cost(plan[:, None]).sum(), plan)
            drawn = noise(1 + iteration, tuple(plan.shape[1:]), plan.device)
            plan = (plan - self.lr * gradient + self.action_noise * drawn).detach()
            if bounds is not None:
                plan = plan.clamp(*bounds)
        return plan
