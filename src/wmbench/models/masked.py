"""DINO-WM's predictor that learns with tokens hidden from it, as Causal-JEPA hides objects (arXiv 2602.11389)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.base import Losses
from wmbench.models.vit import FrameCausalViT
from wmbench.processes.batch import with_noise


class MaskedViT(FrameCausalViT):
    """In training some tokens are hidden in all frames of a window but the first, and must be foreseen from that one and
    from the others. In a rollout nothing is hidden.

    Args:
        masked_share: of the tokens that is hidden, on average.
    """

    def __init__(self, *, masked_share: int | float, **sizes: int | float):
        super().__init__(**sizes)  # type: ignore[arg-type] - those of FrameCausalViT
        if not 0 <= masked_share < 1:
            raise ValueError(f"predictor.masked_share ({masked_share}) must be at least 0 and below 1")
        self.masked_share, self.hidden = masked_share, nn.Parameter(torch.zeros(self.dim))

    def loss(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], target: Float[Tensor, "B T N D"]) -> Losses:
        return super().loss(self.mask(z) if self.training else z, action, target)

    def mask(self, z: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T N D"]:
        """z with the same tokens hidden in all frames but the first."""
        is_hidden = with_noise(torch.rand_like, z[:, 0, :, :1]) < self.masked_share
        return torch.cat([z[:, :1], torch.where(is_hidden[:, None], self.hidden, z[:, 1:])], dim=1)
