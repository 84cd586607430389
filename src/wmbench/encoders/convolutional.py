"""What frozen convolutional networks share: the map of a stage as tokens, or the mean of the last map as one."""

from collections.abc import Mapping

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import Encoder, PixelStatistics, square_grid
from wmbench.encoders.weights import Weights


class Convolutional(Encoder):
    """A subclass sets `trunk`, from pixels to a map, and says what each of its outputs is; "pooled" is averaged.

    Raises:
        ValueError: an image_size that the output's stride does not divide: the cells of its map would be uneven.
    """

    trunk: nn.Module
    widths: Mapping[str, int]  # features of a token, by output
    strides: Mapping[str, int]  # pixels to a cell of the map, by output

    def __init__(self, image_size: int, output: str, statistics: PixelStatistics, origin: Weights):
        grid = square_grid(image_size, self.strides[output], f"stride of {output}")
        super().__init__(
            image_size=image_size,
            grid=(1, 1) if output == "pooled" else grid,
            embed_dim=self.widths[output],
            **statistics,
            source=origin.source,
            licence=origin.licence,
        )

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        features = self.trunk(pixels.contiguous())  # channels last, one frame and a batch would take different kernels
        if self.num_tokens == 1:
            return reduce(features, "f d h w -> f 1 d", "mean")
        return rearrange(features, "f d h w -> f (h w) d")
