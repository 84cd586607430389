"""A variational autoencoder (Kingma and Welling 2014), as the V of World Models (arXiv 1803.10122)."""

from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.latent_vae import LOG_VARIANCES, divergence, drawn
from wmbench.encoders.scratch import Scratch
from wmbench.models.base import Losses
from wmbench.pretraining.base import Pretraining
from wmbench.pretraining.drawing import Drawing
from wmbench.shapes import Batch


class VAE(Pretraining):
    """Tokens are the means of a normal posterior; a frame is drawn from a sample of it.

    Args:
        kl_weight: of a frame's divergence from a standard normal [nats], added to the mean squared error of pixels in
            [-1, 1]. World Models' loss (squared errors of pixels in [0, 1], summed) has 4 / (3 h w), 3.3e-4 at 64 pixels.
    """

    def __init__(self, encoder: Scratch, decoder: nn.Module, kl_weight: int | float):
        super().__init__(encoder)
        self.log_variance, self.drawing = nn.Linear(encoder.embed_dim, encoder.embed_dim), Drawing(encoder, decoder)
        self.kl_weight = kl_weight

    def forward(self, pixels: Float[Tensor, "B T 3 h w"], batch: Batch) -> Losses:
        pixels = pixels.flatten(0, 1)
        mean = self.encoder.continuous(pixels)
        log_variance = self.log_variance(mean).clamp(*LOG_VARIANCES)
        reconstruction = nn.functional.mse_loss(self.drawing(drawn(mean, log_variance)), pixels)
        nats = mean.shape[1] * divergence(mean, log_variance)
        return Losses(reconstruction + self.kl_weight * nats, {"reconstruction": reconstruction, "nats": nats})

    def draw(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F 3 h w"]:
        return self.drawing(self.encoder.continuous(pixels))
