"""A goal-conditioned inverse model: the action that leads towards a goal, without any planning."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.base import Losses
from wmbench.models.reader import LatentPairs, Reader


class InverseModel(nn.Module):
    """The next block of normalised actions, from latents of where the ball is and of where it is to be.

    It learns by goal-conditioned behaviour cloning (Ding et al. 2019, arXiv 1906.05838): any later frame of an episode is a
    goal that the actions before it have reached.

    Args:
        dim, num_tokens: of the visual latents.
        action_dim: numbers of an action block.
        token_width, width: of the Reader.
    """

    called, remembers = "inverse model", False

    def __init__(self, dim: int, num_tokens: int, action_dim: int, token_width: int, width: int):
        super().__init__()
        self.reader = Reader(dim, 2 * num_tokens, token_width, width)  # of both frames together, to see their difference
        self.act = nn.Linear(width, action_dim)

    def forward(self, z: Float[Tensor, "B N D"], goal: Float[Tensor, "B N D"]) -> Float[Tensor, "B A"]:
        return self.act(self.reader(torch.cat([z, goal], dim=1)))

    def loss(self, pairs: LatentPairs) -> Losses:
        """Mean squared error of the block that followed; how many lead to the later frame is not told."""
        error = nn.functional.mse_loss(self(pairs.z, pairs.later), pairs.action)
        return Losses(error, {"error": error})
