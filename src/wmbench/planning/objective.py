"""How far predicted latents are from the goal's: what a planner minimises."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.models.quasimetric import Quasimetric

MODES = ("last", "all")


@dataclass(frozen=True)
class Objective:
    """DINO-WM's planning objective: squared distance of visual latents, plus alpha times that of proprio.

    A subclass compares visual latents in another way.

    mode: `last` looks at the last predicted frame; `all` at every frame from the encoded start on, weighted by base**i
        (normalised to sum 1) and then, as the original does, averaged over the frames once more.
    alpha: weight of the embedded proprio; 0 leaves it out, also where the model has it. The goal's proprio holds the goal's
        velocity.
    needs: the field that is fitted on a run's training data, and comes with the run.
    caution: what a plan's mean standard deviation weighs in its cost.
    """

    mode: str = "last"
    alpha: int | float = 0.0
    base: int | float = 2.0
    needs: ClassVar[str | None] = None
    caution: ClassVar[int | float] = 0.0

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
        distance = self.compare(visual, goal_visual)
        if self.alpha and proprio is not None:
            distance = distance + self.alpha * (proprio - goal_proprio).square().mean((-2, -1))
        return distance

    def compare(self, visual: Float[Tensor, "*B N D"], goal: Float[Tensor, "*#B N D"]) -> Float[Tensor, "*B"]:
        """Distance of visual latents from the goal's."""
        return (visual - goal).square().mean((-2, -1))

    def check(self, num_tokens: int) -> None:
        """Refuse a model of so many visual tokens that the objective does not fit.

        Raises:
            ValueError: naming the setting.
        """


@dataclass(frozen=True, kw_only=True)
class TopK(Objective):
    """Squared distance of the k tokens that differ most, each plan's own."""

    k: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ValueError(f"objective.k ({self.k}) must be positive")

    def compare(self, visual: Float[Tensor, "*B N D"], goal: Float[Tensor, "*#B N D"]) -> Float[Tensor, "*B"]:
        return (visual - goal).square().mean(-1).topk(self.k, dim=-1).values.mean(-1)

    def check(self, num_tokens: int) -> None:
        if self.k > num_tokens:
            raise ValueError(f"objective.k ({self.k}) must not exceed the model's tokens ({num_tokens})")


@dataclass(frozen=True, kw_only=True)
class Cosine(Objective):
    """1 - cosine of each token and the goal's, on average over tokens."""

    def compare(self, visual: Float[Tensor, "*B N D"], goal: Float[Tensor, "*#B N D"]) -> Float[Tensor, "*B"]:
        return 1 - torch.nn.functional.cosine_similarity(visual, goal, dim=-1).mean(-1)


@dataclass(frozen=True, kw_only=True)
class VarianceWeighted(Objective):
    """Squared distance, in which tokens count by their variance over training frames.

    variance: of each token. What never changes tells no place from another and weighs nothing; weights are 1 on average.

    Raises:
        ValueError: no token varies.
    """

    variance: Float[Tensor, " N"] = field(repr=False, compare=False)
    needs: ClassVar[str | None] = "variance"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.variance.sum() > 0:
            raise ValueError("objective=variance: none of the run's tokens varies over its training frames")

    def compare(self, visual: Float[Tensor, "*B N D"], goal: Float[Tensor, "*#B N D"]) -> Float[Tensor, "*B"]:
        weights = (self.variance / self.variance.mean()).to(visual)
        return ((visual - goal).square().mean(-1) * weights).mean(-1)

    def check(self, num_tokens: int) -> None:
        if len(self.variance) != num_tokens:
            raise ValueError(
                f"objective=variance: {len(self.variance)} tokens were measured and the model has {num_tokens}; "
                "the train.py command that made the run measures them again"
            )


@dataclass(frozen=True, kw_only=True)
class Learned(Objective):
    """Blocks to the goal, as a quasimetric tells that was learned from the training episodes."""

    distance: Quasimetric = field(repr=False, compare=False)
    needs: ClassVar[str | None] = "distance"

    def compare(self, visual: Float[Tensor, "*B N D"], goal: Float[Tensor, "*#B N D"]) -> Float[Tensor, "*B"]:
        return self.distance(visual, goal)


@dataclass(frozen=True, kw_only=True)
class Cautious(Objective):
    """Squared distance plus what the model is unsure of, so that no plan wins by leaving what the model knows.

    Raises:
        ValueError: a weight that is none.
    """

    caution: int | float  # type: ignore[misc] - a field here, zero elsewhere

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.caution < math.inf:
            raise ValueError(f"objective.caution ({self.caution}) must be positive; objective=uniform has none")


@dataclass(frozen=True, kw_only=True)
class OwnSpace(Objective):
    """Squared distance in a space of the predictor's own, in which both a plan's end and the goal are looked up.

    Raises:
        ValueError: a weight of proprio, which lies in no such space by itself.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha:
            raise ValueError(f"objective.alpha ({self.alpha}) must be 0 with objective=own_space")

    def _distance(self, model: Any, z: Float[Tensor, "*B N D"], goal: Float[Tensor, "*#B N D"]) -> Float[Tensor, "*B"]:
        return self.compare(model.predictor.place(z), model.predictor.place(goal))
