"""What recurrent predictors of an encoder's tokens share: a state that takes one frame after another, real or foreseen."""

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.models.base import Predictor


class Recurrent(Predictor):
    """A state is a NamedTuple of tensors with a row for each plan, of which `z` is the newest latent.

    `step` says what follows under a block, and leaves everything that it says of it in the state.
    """

    @abstractmethod
    def blank(self, z: Float[Tensor, "B N D"]) -> Any:
        """The state at a frame with none before it."""

    def forward(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        return torch.stack([state.z for state in self.states(z, action)], dim=1)

    def states(self, z: Float[Tensor, "B R N D"], action: Float[Tensor, "B T A"]) -> list[Any]:
        """The state after each block, from the real frames z and, where these end, from what was foreseen."""
        state, states = self.blank(z[:, 0]), []
        for step, block in enumerate(action.unbind(1)):
            if step < z.shape[1]:
                state = state._replace(z=z[:, step])
            state = self.step(state, block)[1]
            states.append(state)
        return states

    def begin(self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], num_plans: int) -> Any:
        state = self.states(z, past)[-1] if past.shape[1] else self.blank(z[:, 0])
        return type(state)(*(part.repeat_interleave(num_plans, 0) for part in state._replace(z=z[:, -1])))
