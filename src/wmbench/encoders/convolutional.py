"""What frozen convolutional networks share: their last map as tokens, or its mean as one."""

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import Encoder


class Convolutional(Encoder):
    """A subclass sets `trunk`, from pixels to a map, and a grid of (1, 1) where the map is to be averaged."""

    trunk: nn.Module

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        features = self.trunk(pixels.contiguous())  # channels last, one frame and a batch would take different kernels
        if self.num_tokens == 1:
            return reduce(features, "f d h w -> f 1 d", "mean")
        return rearrange(features, "f d h w -> f (h w) d")
