"""The cost of plans under a world model, in as many rollouts at once as fit into memory."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.planning.memory import is_out_of_memory, rollouts_at_once
from wmbench.planning.planner import Cost

Distance = Callable[[Any, Tensor, Tensor, Tensor], Tensor]  # an objective: model, start, z (B S H N D), goal -> (B S)


class RolloutCost:
    """Costs, and their gradients where a planner asks for these, as many rollouts at a time as fit.

    Args:
        model: an agent's.
        num_context, horizon: real frames and blocks of the longest rollout that there will be.
        memory_gb: that rollouts may take, or half of what is free.
        has_gradients: whether plans will be differentiated, which takes more.
    """

    def __init__(
        self, model: Any, objective: Distance, *, num_context: int, horizon: int, memory_gb: int | float, has_gradients: bool
    ):
        self.model, self.objective = model, objective
        self.num_context, self.horizon = num_context, horizon
        self.memory_gb, self.has_gradients = memory_gb, has_gradients
        self.caution = getattr(objective, "caution", 0.0)
        self._room: int | None = None
        self._is_sound: Tensor | None = None  # whether all costs since the last check are finite

    def of(self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], goal: Float[Tensor, "B N D"]) -> Cost:
        """Cost of plans from z towards the goal."""

        def score(tasks: slice, plans: Float[Tensor, "B S H A"]) -> tuple[Tensor, Tensor | None]:
            leaf = plans.detach().requires_grad_(plans.requires_grad)
            rollout, doubt = self._foresee(z[tasks], past[tasks], leaf)
            costs = self.objective(self.model, z[tasks, -1], rollout, goal[tasks]) + doubt
            if not costs.requires_grad:
                return costs, None
            return costs.detach(), torch.autograd.grad(costs.sum(), leaf)[0]  # the graph ends with its chunk

        def cost(plans: Float[Tensor, "B S H A"]) -> Float[Tensor, "B S"]:
            num_tasks, num_samples = plans.shape[:2]
            room = self.room(z[:1, -1])
            together = min(num_tasks, max(1, room // num_samples))
            parts = -(-num_samples * together // max(room, together))
            groups = [slice(first, min(first + together, num_tasks)) for first in range(0, num_tasks, together)]
            try:
                scored = [[score(group, part) for part in plans[group].tensor_split(parts, 1)] for group in groups]
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if room == 1:
                    raise ValueError(
                        f"a single rollout of {self.horizon} blocks does not fit into the memory of {plans.device} "
                        f"({' '.join(str(error).split())[:120]}); lower agent.horizon, or make room there"
                    ) from error
            else:
                costs = torch.cat([torch.cat([costs for costs, _ in row], dim=1) for row in scored])
                is_sound = costs.detach().isfinite().all()
                self._is_sound = is_sound if self._is_sound is None else self._is_sound & is_sound
                if scored[0][0][1] is None:
                    return costs
                slopes = torch.cat([torch.cat([slope for _, slope in row], dim=1) for row in scored])  # type: ignore[arg-type]
                return _Sloped.apply(plans, costs, slopes)
            torch.cuda.empty_cache()  # does nothing without a GPU
            self._room = room // 2
            return cost(plans)

        return cost

    def _foresee(self, z: Tensor, past: Tensor, plans: Tensor) -> tuple[Tensor, Tensor | float]:
        """Latents of plans, and what being unsure of them costs."""
        if not self.caution:
            return self.model.rollout(z, past, plans), 0.0
        latents, doubt = self.model.rollout_with_doubt(z, past, plans)
        return latents, self.caution * doubt.mean(2)

    def check(self) -> None:
        """Ask, once for all costs of a plan since a GPU would be waited for, whether they are finite.

        Raises:
            ValueError: some are not, so that nothing says which plan is the best.
        """
        if self._is_sound is not None and not self._is_sound:
            raise ValueError(
                "the world model's costs of plans are NaN or Inf: its weights or tokens are, or its rollouts grow too far; "
                "precision=fp32 and agent.clip_actions=true keep them smaller, another checkpoint= may be sound"
            )
        self._is_sound = None

    def room(self, frame: Float[Tensor, "1 N D"]) -> int:
        """Rollouts that fit into memory at once, measured on the longest that there will be, from any frame."""
        if self._room is None:
            size = block_dim(self.model)
            z = frame[:, None].repeat(1, self.num_context, 1, 1)
            past = z.new_zeros(1, self.num_context - 1, size)

            def run(count: int) -> None:
                with torch.set_grad_enabled(self.has_gradients):
                    plans = z.new_zeros(1, count, self.horizon, size).requires_grad_(self.has_gradients)
                    cost = self.objective(self.model, frame, self.model.rollout(z, past, plans), frame)
                    if self.has_gradients:
                        torch.autograd.grad(cost.sum(), plans)

            self._room = rollouts_at_once(run, frame.device, self.memory_gb)
        return self._room


def block_dim(model: Any) -> int:
    """Numbers of a model's action block."""
    return model.frameskip * len(model.normalizer.action_mean)


class _Sloped(torch.autograd.Function):
    """Costs of plans whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, plans: Tensor, costs: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(slopes)
        return costs.clone()

    @staticmethod
    def backward(ctx: Any, *weight: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return weight[0][:, :, None, None] * slopes, None, None
