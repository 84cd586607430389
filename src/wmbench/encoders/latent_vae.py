"""A tokenizer in VFM-VAE's form (arXiv 2510.18457), trained here: a frozen backbone's tokens narrowed to a Gaussian."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import Encoder
from wmbench.encoders.tokenizer import Tokenizer, frozen_backbone, head_file
from wmbench.encoders.weights import drawn_from
from wmbench.processes.batch import with_noise

METHOD = "after VFM-VAE, without attention in the adapter"
LOG_VARIANCES = (-30.0, 20.0)  # clamped as in VFM-VAE


class LatentVAE(Tokenizer):
    """Tokens are the mean of the posterior; training draws from it.

    Args:
        backbone: builds an encoder with a grid of tokens, given pretrained, seed and, for small networks, architecture.
        hidden_dim: width of the adapter between the backbone's tokens and the posterior.
        z_dim: features of a token.
        kl_weight: of the posterior's divergence from a standard normal (a token's, in nats) in the training's loss.
        pretrained, weights, file, seed, architecture, for_training: as in DinoTok.

    Raises:
        ValueError: a backbone without a grid of tokens, a size that does not fit, or a head of another network.
        FileNotFoundError: no trained head, or no weights of the backbone; the message says what to do.
    """

    def __init__(
        self,
        backbone: Callable[..., Encoder],
        hidden_dim: int,
        z_dim: int,
        kl_weight: int | float,
        pretrained: bool,
        weights: str | None,
        file: str,
        seed: int,
        architecture: Mapping[str, Any],
        for_training: bool = False,
    ):
        if min(hidden_dim, z_dim) < 1 or kl_weight < 0:
            raise ValueError(
                f"hidden_dim ({hidden_dim}) and z_dim ({z_dim}) must be positive, kl_weight ({kl_weight}) not negative"
            )
        path = head_file(pretrained, weights, file, for_training)
        trunk = frozen_backbone(backbone, pretrained, seed, architecture)
        width = trunk.embed_dim
        with drawn_from(seed):
            head = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, 2 * z_dim)
            )
        super().__init__(trunk, head, z_dim, METHOD, path, seed, for_training)
        self.kl_weight = kl_weight

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        return self.moments(pixels)[0]

    def sample(self, pixels: Float[Tensor, "F 3 h w"]) -> tuple[Float[Tensor, "F N D"], Float[Tensor, ""]]:
        mean, log_variance = self.moments(pixels)
        return drawn(mean, log_variance), self.kl_weight * divergence(mean, log_variance)

    def moments(self, pixels: Float[Tensor, "F 3 h w"]) -> tuple[Float[Tensor, "F N D"], Float[Tensor, "F N D"]]:
        """Mean and log-variance of the posterior."""
        mean, log_variance = self.head(self.backbone.tokens(pixels)).chunk(2, dim=-1)
        return mean, log_variance.clamp(*LOG_VARIANCES)


def drawn(mean: Float[Tensor, "F N D"], log_variance: Float[Tensor, "F N D"]) -> Float[Tensor, "F N D"]:
    """A sample of the posterior, with gradients."""
    return mean + (0.5 * log_variance).exp() * with_noise(torch.randn_like, mean)


def divergence(mean: Float[Tensor, "F N D"], log_variance: Float[Tensor, "F N D"]) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of a token's posterior from a standard normal [nats], averaged over tokens."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean()
