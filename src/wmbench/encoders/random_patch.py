"""A random linear projection of image patches: an untrained floor, and the tests' encoder."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import DINO_WM_MEAN, DINO_WM_STD, Encoder

PATCH = 8  # pixels


class RandomPatch(Encoder):
    """Each of grid x grid square patches through one fixed random matrix, drawn from `seed`.

    Args:
        image_size: [pixels]; None: PATCH pixels for each side of a patch.

    Raises:
        ValueError: an image_size that the grid does not divide.
    """

    size_sets_grid = False

    def __init__(self, image_size: int | None, grid: int, embed_dim: int, seed: int):
        if grid < 1:
            raise ValueError(f"grid ({grid}) must be positive")
        image_size = PATCH * grid if image_size is None else image_size
        if image_size % grid:
            raise ValueError(f"image_size ({image_size}) must be a multiple of grid ({grid})")
        super().__init__(
            image_size=image_size,
            grid=(grid, grid),
            embed_dim=embed_dim,
            pixel_mean=DINO_WM_MEAN,
            pixel_std=DINO_WM_STD,
            source=f"untrained, seed {seed}",
        )
        patch = image_size // grid
        self.project = nn.Conv2d(3, embed_dim, patch, stride=patch, bias=False)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.project.weight, std=(3 * patch**2) ** -0.5, generator=generator)
        self.freeze()

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        return self.project(pixels).flatten(2).transpose(1, 2)
