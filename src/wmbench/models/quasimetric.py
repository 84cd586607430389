"""A distance that is learned: how many blocks the ball needs from one frame to another."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.base import Losses
from wmbench.models.reader import LatentPairs, Reader

NUM_COORDINATES = 32  # of each of the two parts


class Quasimetric(nn.Module):
    """Time to reach, which is 0 to itself, keeps the triangle inequality and may be longer one way than the other.

    The form is the metric residual network's (Liu et al. 2023, arXiv 2208.08133): the largest gain in any of some
    coordinates, plus a Euclidean distance in others. It learns from pairs of frames of one episode by expectile regression
    (as in Kostrikov et al. 2022, arXiv 2110.06169): the time that passed between them is an upper bound on the time needed,
    so that an estimate above it costs more than one below it. From that and the triangle inequality follow ways that no
    episode took as a whole.

    Args:
        dim, num_tokens: of the visual latents.
        token_width, width: of the Reader.
        expectile: of the times that were seen, below a half: 0.1 counts an estimate that is too long nine times as much.

    Raises:
        ValueError: an expectile that is none.
    """

    def __init__(self, dim: int, num_tokens: int, token_width: int, width: int, expectile: float):
        super().__init__()
        if not 0 < expectile < 1:
            raise ValueError(f"distance.expectile ({expectile}) must be between 0 and 1")
        self.expectile = expectile
        self.reader = Reader(dim, num_tokens, token_width, width)
        self.coordinates = nn.Linear(width, 2 * NUM_COORDINATES)

    def forward(self, z: Float[Tensor, "*B N D"], goal: Float[Tensor, "*#B N D"]) -> Float[Tensor, "*B"]:
        """Blocks from z to the goal."""
        gain, place = (self.coordinates(self.reader(goal)) - self.coordinates(self.reader(z))).chunk(2, dim=-1)
        return gain.relu().amax(-1) + torch.linalg.vector_norm(place, dim=-1)

    def loss(self, pairs: LatentPairs) -> Losses:
        """The expectile loss of the times between two frames; the actions say nothing here."""
        gap = pairs.blocks - self(pairs.z, pairs.later)
        total = (torch.where(gap > 0, self.expectile, 1 - self.expectile) * gap.square()).mean()
        return Losses(total, {"error": gap.abs().mean()})
