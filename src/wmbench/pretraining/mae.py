"""A masked autoencoder (arXiv 2111.06377): hidden patches are drawn from what is seen of a frame.

Patches are hidden in the frame (as in SimMIM, arXiv 2111.09886), so that a convolutional trunk can be trained with it, too.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from wmbench.encoders.base import square_grid
from wmbench.encoders.scratch import Scratch
from wmbench.models.base import Losses
from wmbench.pretraining.base import Pretraining, mlp
from wmbench.pretraining.views import as_pixels, cover, hidden_cells, num_hidden
from wmbench.shapes import Batch


class MAE(Pretraining):
    """Every token draws its own part of the frame; errors count where pixels were hidden.

    Args:
        patch: side of a hidden square [pixels].
        hidden: share of them that is hidden, rounded to whole ones.
    """

    def __init__(self, encoder: Scratch, patch: int, hidden: int | float):
        super().__init__(encoder)
        self.side = square_grid(encoder.image_size, patch, "patch")[0]
        self.num_hidden = num_hidden(self.side**2, hidden)
        self.size = encoder.image_size // encoder.map_grid[0]
        self.drawing = mlp(encoder.embed_dim, 4 * encoder.embed_dim, 3 * self.size**2)

    def forward(self, pixels: Float[Tensor, "B T 3 h w"], batch: Batch) -> Losses:
        pixels = pixels.flatten(0, 1)
        hidden = hidden_cells(len(pixels), self.side, self.num_hidden, pixels.device)
        errors = (self.draw(cover(pixels, hidden)) - pixels).square().mean(1)
        reconstruction = errors[as_pixels(hidden, pixels.shape[-1])].mean()
        return Losses(reconstruction, {"reconstruction": reconstruction})

    def draw(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F 3 h w"]:
        parts, rows = self.drawing(self.encoder.map(pixels)), self.encoder.map_grid[0]
        return rearrange(parts, "f (r c) (rgb h w) -> f rgb (r h) (c w)", r=rows, h=self.size, w=self.size)
