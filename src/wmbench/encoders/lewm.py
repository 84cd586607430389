"""LeWorldModel's encoders, trained end to end with the predictor (arXiv 2603.19312).

A trunk gives one vector a frame; a projector with BatchNorm turns it into the latent. Without the projector the trunk's
final LayerNorm would fix every token's norm, which SIGReg's Gaussian cannot have.
"""

from collections.abc import Sequence
from itertools import pairwise

from einops.layers.torch import Rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import Encoder


def projector(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    """Linear, BatchNorm, GELU, linear: LeWM's head behind both the encoder and the predictor."""
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim), nn.BatchNorm1d(hidden_dim), nn.GELU(), nn.Linear(hidden_dim, out_dim)
    )


class LeWM(Encoder):
    """The released recipe: a ViT from scratch, its CLS token, the projector."""

    def __init__(
        self, image_size: int, patch_size: int, width: int, depth: int, num_heads: int, embed_dim: int, projector_dim: int
    ):
        if image_size % patch_size:
            raise ValueError(f"image_size ({image_size}) must be a multiple of patch_size ({patch_size})")
        super().__init__(
            image_size=image_size, grid=(1, 1), embed_dim=embed_dim, frozen=False, source="trained with the model"
        )
        from transformers import ViTConfig, ViTModel  # seconds to import, which the small model need not wait for

        config = ViTConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=num_heads,
            intermediate_size=4 * width,
            image_size=image_size,
            patch_size=patch_size,
        )
        self.trunk = ViTModel(config, add_pooling_layer=False)
        self.projector = projector(width, projector_dim, embed_dim)

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        return self.projector(self.trunk(pixels).last_hidden_state[:, 0])[:, None]


class SmallLeWM(Encoder):
    """LeWM with a convolutional trunk that trains on two cores in minutes.

    Args:
        widths: channels after a 4 x 4 patch layer and after each following stride-2 convolution.
    """

    def __init__(self, image_size: int, widths: Sequence[int], embed_dim: int, projector_dim: int):
        super().__init__(
            image_size=image_size, grid=(1, 1), embed_dim=embed_dim, frozen=False, source="trained with the model"
        )
        side = image_size // (4 * 2 ** (len(widths) - 1))
        if side * 4 * 2 ** (len(widths) - 1) != image_size:
            raise ValueError(f"image_size ({image_size}) must be a multiple of {4 * 2 ** (len(widths) - 1)}")
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=4), nn.GELU()]
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.GELU()]
        self.trunk = nn.Sequential(*layers, Rearrange("f c h w -> f (c h w)"))
        self.projector = projector(widths[-1] * side**2, projector_dim, embed_dim)

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        return self.projector(self.trunk(pixels))[:, None]
