"""Views that agree under a Gaussian (LeJEPA, arXiv 2511.08544): SIGReg in place of teacher, centring and negatives."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from wmbench.encoders.scratch import Scratch
from wmbench.models.base import Losses
from wmbench.models.sigreg import SIGReg
from wmbench.pretraining.base import Pretraining, mlp, summary
from wmbench.pretraining.views import multi_crop
from wmbench.shapes import Batch


class LeJEPA(Pretraining):
    """Every view's embedding foresees the mean of the large views', and all views together are an isotropic Gaussian.

    Args:
        regularizer: keeps embeddings from collapsing.
        embed_dim, hidden_dim: of a projector that is dropped afterwards.
        large, small: least and largest share of a frame that a view shows.
        num_small: small views; there are two large ones.
    """

    def __init__(
        self,
        encoder: Scratch,
        regularizer: SIGReg,
        embed_dim: int,
        hidden_dim: int,
        large: Sequence[int | float],
        small: Sequence[int | float],
        num_small: int,
    ):
        super().__init__(encoder)
        self.project, self.regularizer = mlp(encoder.embed_dim, hidden_dim, embed_dim), regularizer
        self.large, self.small, self.num_small = large, small, num_small

    def forward(self, pixels: Float[Tensor, "B T 3 h w"], batch: Batch) -> Losses:
        pixels = pixels.flatten(0, 1)
        views = multi_crop(pixels, self.large, self.small, self.num_small)
        z = rearrange(self.project(summary(self.encoder, torch.cat(views))), "(v b) d -> b v d", b=len(pixels))
        agreement = (z - z[:, :2].mean(1, keepdim=True)).square().mean()
        sigreg = self.regularizer(z[:, :, None])
        total = agreement + self.regularizer.loss_weight(len(pixels)) * sigreg
        return Losses(total, {"agreement": agreement, "sigreg": sigreg})
