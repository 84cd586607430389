"""The contract of a predictor, the part of a world model that foresees; it decides itself what it remembers in a rollout."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Losses(NamedTuple):
    """The loss that a step descends, and its parts: the columns of metrics, of which `prediction` is also validated."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]


class Latents(TypedDict):
    """What every predictor is built with, in addition to the settings of its own YAML."""

    dim: int  # features of a token
    num_tokens: int  # of a latent
    num_hist: int  # frames of a training window
    action_dim: int  # numbers of an action block


class Predictor(nn.Module, ABC):
    """Foresees latents under normalised action blocks: all of a window in training, one after another in a rollout."""

    @abstractmethod
    def forward(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        """Frame t of the result follows frame t of z under action[:, t], foreseen from frames up to t only."""

    def loss(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], target: Float[Tensor, "B T N D"]) -> Losses:
        """Mean squared error of the predictions; a predictor of distributions brings its own likelihood.

        Args:
            target: frame t is what follows frame t of z.
        """
        prediction = nn.functional.mse_loss(self(z, action), target)
        return Losses(prediction, {"prediction": prediction})

    @abstractmethod
    def begin(self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], num_plans: int) -> Any:
        """What the seen frames leave behind for each of a task's plans: the state of a rollout.

        Args:
            past: blocks taken between the frames of z.
        """

    @abstractmethod
    def step(self, state: Any, action: Float[Tensor, "BS A"]) -> tuple[Float[Tensor, "BS N D"], Any]:
        """The latent that follows under the next block of every plan, and the state after it.

        Args:
            action: the plans of the first task, then those of the second, and so on.
        """

    def unroll(self, z: Float[Tensor, "B R N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B _ N D"]:
        """What follows the last of the real frames z under the blocks from it on, each latent from the one foreseen before.

        Args:
            action: the blocks between the real frames, then those to foresee.
        """
        state, latents = self.begin(z, action[:, : z.shape[1] - 1], num_plans=1), []
        for block in action[:, z.shape[1] - 1 :].unbind(1):
            latent, state = self.step(state, block)
            latents.append(latent)
        return torch.stack(latents, dim=1)

    def place(self, z: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B M E"]:
        """Where latents lie in a space of the predictor's own.

        Raises:
            ValueError: a predictor that has none.
        """
        raise ValueError(f"objective=own_space: {type(self).__name__} has no space of its own; use objective=uniform")

    @property
    def memory_dim(self) -> int:
        """Numbers that a state remembers in addition to its latent.

        Raises:
            ValueError: a predictor that remembers frames rather than numbers.
        """
        raise ValueError(
            f"policy=controller and policy=actor_critic need a recurrent predictor, and {type(self).__name__} is none"
        )

    def memory(self, state: Any) -> Float[Tensor, "BS M"]:
        """These numbers."""
        raise NotImplementedError

    def doubt(self, state: Any) -> Float[Tensor, " BS"]:
        """Standard deviation of the latent that led to a state, on average over its numbers.

        Raises:
            ValueError: a predictor that does not say.
        """
        raise ValueError(f"objective=cautious: {type(self).__name__} does not say how unsure it is; use objective=uniform")


class Around(Predictor):
    """A predictor around another one, whose own answers it gives unless it says otherwise."""

    def __init__(self, predictor: Predictor):
        super().__init__()
        self.predictor = predictor

    def forward(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        return self.predictor(z, action)

    def begin(self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], num_plans: int) -> Any:
        return self.predictor.begin(z, past, num_plans)

    def step(self, state: Any, action: Float[Tensor, "BS A"]) -> tuple[Float[Tensor, "BS N D"], Any]:
        return self.predictor.step(state, action)

    def place(self, z: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B M E"]:
        return self.predictor.place(z)

    @property
    def memory_dim(self) -> int:
        return self.predictor.memory_dim

    def memory(self, state: Any) -> Float[Tensor, "BS M"]:
        return self.predictor.memory(state).float()

    def doubt(self, state: Any) -> Float[Tensor, " BS"]:
        return self.predictor.doubt(state).float()
