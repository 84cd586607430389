"""The frame itself, shrunk and cut into patches: what planning in pixel space gives."""

from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import DINO_WM_MEAN, DINO_WM_STD, Encoder


class Pixels(Encoder):
    """Tokens are the patches of a (grid * patch_size)-pixel frame, flattened as (channel, row, column)."""

    size_sets_grid = False

    def __init__(self, grid: int, patch_size: int):
        super().__init__(
            image_size=grid * patch_size,
            grid=(grid, grid),
            embed_dim=3 * patch_size**2,
            pixel_mean=DINO_WM_MEAN,
            pixel_std=DINO_WM_STD,
            source="no weights",
        )
        self.patch_size = patch_size
        self.freeze()

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        return nn.functional.unfold(pixels, self.patch_size, stride=self.patch_size).transpose(1, 2)
