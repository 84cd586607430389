"""What timm's Vision Transformers share as encoders: patch tokens, their mean, or the CLS token, after the final norm."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from wmbench.encoders.base import Encoder, PixelStatistics, square_grid
from wmbench.encoders.weights import Weights

OUTPUTS = ("patches", "cls", "mean")


class ViT(Encoder):
    """A subclass fills and freezes `trunk`.

    Args:
        trunk: timm's network.
        output: "patches", "cls" or "mean" (of the patches, one token).
        patch: side of a patch [pixels].

    Raises:
        ValueError: an image_size that the patch does not divide.
    """

    def __init__(self, trunk: Any, output: str, image_size: int, patch: int, statistics: PixelStatistics, origin: Weights):
        grid = square_grid(image_size, patch, "patch")
        super().__init__(
            image_size=image_size,
            grid=grid if output == "patches" else (1, 1),
            embed_dim=trunk.embed_dim,
            prefix_tokens=trunk.num_prefix_tokens,
            **statistics,
            source=origin.source,
            licence=origin.licence,
        )
        self.output, self.trunk = output, trunk

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        features = self.trunk.forward_features(pixels)
        if self.output == "cls":
            return features[:, :1]
        patches = features[:, self.prefix_tokens :]
        return patches if self.output == "patches" else patches.mean(1, keepdim=True)
