"""V of World Models (arXiv 1803.10122): a frame as one Gaussian of a few numbers, from four convolutions."""

from itertools import pairwise

from einops.layers.torch import Rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.latent_vae import LOG_VARIANCES, drawn
from wmbench.encoders.pixels import Pixels
from wmbench.encoders.tokenizer import Tokenizer, head_file
from wmbench.encoders.weights import drawn_from

SIDE = 64  # of a frame [pixels]
NUM_PIXELS = 3 * SIDE**2
WIDTHS = (3, 32, 64, 128, 256)


class ConvVAE(Tokenizer):
    """The token is the mean of the posterior; training draws from it.

    The published loss adds up squared errors of pixels in [0, 1]. Here those of pixels in [-1, 1] are averaged, so the
    divergence counts 4 / NUM_PIXELS as much. No frame is mirrored, as ctallec's are: a maze would become another.

    Args:
        z_dim: features of the token.
        free_nats: of each feature's divergence from a standard normal, on average, below which it costs nothing.
        pretrained, weights, file, seed, for_training: as in DinoTok.

    Raises:
        ValueError: a size that does not fit, or a head of another network.
        FileNotFoundError: no trained head; the message says what to do.
    """

    def __init__(
        self,
        z_dim: int,
        free_nats: int | float,
        pretrained: bool,
        weights: str | None,
        file: str,
        seed: int,
        for_training: bool = False,
    ):
        if z_dim < 1 or free_nats < 0:
            raise ValueError(f"encoder.z_dim ({z_dim}) must be positive, free_nats ({free_nats}) not negative")
        path = head_file(pretrained, weights, file, for_training)
        with drawn_from(seed):
            layers: list[nn.Module] = [Rearrange("f 1 (c h w) -> f c h w", c=3, h=SIDE)]
            for narrow, wide in pairwise(WIDTHS):
                layers += [nn.Conv2d(narrow, wide, 4, stride=2), nn.ReLU()]
            head = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * WIDTHS[-1], 2 * z_dim))
        super().__init__(Pixels(1, SIDE), head, z_dim, "World Models' V", path, seed, for_training)
        self.free_nats = free_nats

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        return self.moments(pixels)[0]

    def sample(self, pixels: Float[Tensor, "F 3 h w"]) -> tuple[Float[Tensor, "F N D"], Float[Tensor, ""]]:
        mean, log_variance = self.moments(pixels)
        return drawn(mean, log_variance), 4 / NUM_PIXELS * floored_divergence(mean, log_variance, self.free_nats)

    def moments(self, pixels: Float[Tensor, "F 3 h w"]) -> tuple[Float[Tensor, "F N D"], Float[Tensor, "F N D"]]:
        """Mean and log-variance of the posterior."""
        mean, log_variance = self.head(self.backbone.tokens(pixels))[:, None].chunk(2, dim=-1)
        return mean, log_variance.clamp(*LOG_VARIANCES)

    def own_decoder(self, image_size: int) -> nn.Module:
        return ConvDecoder(self.embed_dim, image_size)


class ConvDecoder(nn.Module):
    """World Models' decoder: 1,024 features, four transposed convolutions to 64 x 64 pixels, a resize; in [-1, 1]."""

    def __init__(self, dim: int, image_size: int):
        super().__init__()
        self.size = (image_size, image_size)
        layers: list[nn.Module] = [Rearrange("f 1 d -> f d"), nn.Linear(dim, 1024), Rearrange("f d -> f d 1 1")]
        for wide, narrow, kernel in ((1024, 128, 5), (128, 64, 5), (64, 32, 6), (32, 3, 6)):
            layers += [nn.ConvTranspose2d(wide, narrow, kernel, stride=2), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1], nn.Tanh())

    def forward(self, tokens: Float[Tensor, "F 1 D"]) -> tuple[Float[Tensor, "F 3 h w"], Float[Tensor, ""]]:
        """Pixels, and a diff of zero."""
        pixels = self.layers(tokens)
        if pixels.shape[-2:] != self.size:
            pixels = nn.functional.interpolate(pixels, self.size, mode="bilinear")
        return pixels, tokens.new_zeros(())


def floored_divergence(
    mean: Float[Tensor, "F 1 D"], log_variance: Float[Tensor, "F 1 D"], free_nats: int | float
) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence from a standard normal [nats], at least free_nats for each feature of a frame."""
    apart = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2))
    return apart.clamp(min=free_nats * mean.shape[-1]).mean()
