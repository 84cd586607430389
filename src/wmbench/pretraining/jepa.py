"""Masked latent prediction without actions (I-JEPA, arXiv 2301.08243): a teacher's tokens of what is hidden."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.scratch import Scratch
from wmbench.models.base import Losses
from wmbench.pretraining.teacher import Taught
from wmbench.pretraining.views import cover, hidden_cells, num_hidden
from wmbench.shapes import Batch


class JEPA(Taught):
    """From a frame with hidden cells, the tokens that a teacher gives these cells in the whole frame; the teacher is kept.

    Targets are normalised over their features, and errors are smooth absolute ones (beta 1), as in I-JEPA's code.

    Args:
        hidden: share of the map's cells that is hidden.
        decay: of the teacher's average.
        depth, num_heads: of the predictor, a transformer as wide as the tokens.
    """

    def __init__(self, encoder: Scratch, hidden: int | float, decay: int | float, depth: int, num_heads: int):
        if encoder.embed_dim % num_heads:
            raise ValueError(f"num_heads ({num_heads}) must divide the encoder's embed_dim ({encoder.embed_dim})")
        super().__init__(encoder, decay)
        (self.side, columns), dim = encoder.map_grid, encoder.embed_dim
        self.num_hidden = num_hidden(self.side * columns, hidden)
        self.mask = nn.Parameter(0.02 * torch.randn(dim))
        self.position = nn.Parameter(0.02 * torch.randn(self.side * columns, dim))
        layers = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        layer = nn.TransformerEncoderLayer(dim, num_heads, 4 * dim, **layers)
        self.predictor = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.to_target = nn.Linear(dim, dim)

    def forward(self, pixels: Float[Tensor, "B T 3 h w"], batch: Batch) -> Losses:
        pixels = pixels.flatten(0, 1)
        hidden = hidden_cells(len(pixels), self.side, self.num_hidden, pixels.device)
        is_hidden = rearrange(hidden, "f r c -> f (r c)")
        with torch.no_grad():
            target = self.result.map(pixels)
            target = nn.functional.layer_norm(target, target.shape[-1:])
        seen = torch.where(is_hidden[..., None], self.mask, self.encoder.map(cover(pixels, hidden)))
        predicted = self.to_target(self.predictor(seen + self.position))
        error = nn.functional.smooth_l1_loss(predicted[is_hidden], target[is_hidden])
        return Losses(error, {"prediction": error})
