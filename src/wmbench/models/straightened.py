"""Temporal straightening (arXiv 2603.12231): a few channels in which the path of an episode hardly bends, to plan in."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.base import Losses
from wmbench.models.projected import Projected
from wmbench.models.vit import FrameCausalViT


def curvature(path: Float[Tensor, "B T C"]) -> Float[Tensor, ""]:
    """1 - cosine of the angle between one step of a path and the next, on average: 0 on a straight line."""
    step = path.diff(dim=1)
    return 1 - nn.functional.cosine_similarity(step[:, :-1], step[:, 1:], dim=-1).mean()


class StraightenedViT(Projected):
    """DINO-WM's ViT behind a projector to a few channels of each token, which learns with it.

    Prediction and curvature alone would leave the channels nothing to tell; here the tokens are also to be read back from
    them, which is our choice, as the notes on the paper do not say what is done there. objective=own_space compares
    channels, objective=uniform the tokens read back.

    Args:
        channels: of each token (the paper: 8).
        width: features of a token inside.
        curvature_weight: in the loss (the paper: 0.1); 0 leaves a projector that is not straightened.
        inside: arguments of the ViT.
    """

    def __init__(self, dim: int, channels: int, width: int, curvature_weight: int | float, **inside: int | float):
        super().__init__(partial(FrameCausalViT, **inside), dim, width)  # type: ignore[arg-type]
        self.curvature_weight = curvature_weight
        self.inward = nn.Sequential(nn.Linear(dim, channels), nn.Linear(channels, width))
        self.head = nn.Sequential(nn.Linear(width, channels), nn.Linear(channels, dim))

    def narrow(self, z: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B N C"]:
        return self.inward[0](z)

    def widen(self, z: Float[Tensor, "*B N C"]) -> Float[Tensor, "*B N D"]:
        return self.head[1](z)

    def loss(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], target: Float[Tensor, "B T N D"]) -> Losses:
        frames = torch.cat([z, target[:, -1:]], dim=1)
        path = self.narrow(frames)
        error = nn.functional.mse_loss(self.narrow(self(z, action)), path[:, 1:].detach())
        read = nn.functional.mse_loss(self.widen(path), frames)
        bend = curvature(path.flatten(2)) if path.shape[1] > 2 else path.new_zeros(())
        parts = {"prediction": error.detach(), "read_back": read.detach(), "curvature": bend.detach()}
        return Losses(error + read + self.curvature_weight * bend, parts)

    def place(self, z: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B N C"]:
        return self.narrow(z)
