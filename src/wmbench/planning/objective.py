"""How far predicted latents are from the goal's: what a planner minimises."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

MODES = ("last", "all")


@dataclass(frozen=True)
class Objective:
    """DINO-WM's planning objective: squared distance of visual latents, plus alpha times that of proprio.

    mode: `last` looks at the last predicted frame; `all` at every frame from the encoded start on, weighted by base**i
        (normalised to sum 1) and then, as the original does, averaged over the frames once more.
    alpha: weight of the embedded proprio; 0 leaves it out, also where the model has it. The goal's proprio holds the goal's
        velocity.
    """

    mode: str = "last"
    alpha: int | float = 0.0
    base: int | float = 2.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"objective.mode: unknown objective mode {self.mode!r}; known: {', '.join(MODES)}")
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"objective.alpha ({self.alpha}) must not be negative")
        if not 0 < self.base < math.inf:
            raise ValueError(f"objective.base ({self.base}) must be positive")

    def __call__(
        self, model: Any, start: Float[Tensor, "B N D"], z: Float[Tensor, "B S H N D"], goal: Float[Tensor, "B N D"]
    ) -> Float[Tensor, "B S"]:
        """Cost of the predicted latents z that follow `start`; the model splits latents into visual and proprio."""
        if self.mode == "last":
            return self._distance(model, z[:, :, -1], goal[:, None])
        frames = self._distance(model, z, goal[:, None, None])  # B S H
        first = self._distance(model, start, goal)[:, None, None].expand(*frames.shape[:2], 1)
        distances = torch.cat([first, frames], dim=2)
        weights = self.base ** torch.arange(distances.shape[2], device=z.device, dtype=z.dtype)
        return (distances * weights / weights.sum()).mean(2)

    def _distance(self, model: Any, z: Float[Tensor, "*B N D"], goal: Float[Tensor, "*#B N D"]) -> Float[Tensor, "*B"]:
        (visual, proprio), (goal_visual, goal_proprio) = model.split(z), model.split(goal)
        distance = (visual - goal_visual).square().mean((-2, -1))
        if self.alpha and proprio is not None:
            distance = distance + self.alpha * (proprio - goal_proprio).square().mean((-2, -1))
        return distance
