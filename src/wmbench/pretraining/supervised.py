"""Position labels: what every other objective has to find by itself, so the ceiling."""

from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.scratch import Scratch
from wmbench.models.base import Losses
from wmbench.pretraining.base import Pretraining, summary
from wmbench.shapes import Batch


class Supervised(Pretraining):
    """The ball's position [m], read linearly from the mean of a frame's tokens."""

    def __init__(self, encoder: Scratch):
        super().__init__(encoder)
        self.read = nn.Linear(encoder.embed_dim, 2)

    def forward(self, pixels: Float[Tensor, "B T 3 h w"], batch: Batch) -> Losses:
        position = batch.obs["proprio"][..., :2].flatten(0, 1)
        error = nn.functional.mse_loss(self.read(summary(self.encoder, pixels.flatten(0, 1))), position)
        return Losses(error, {"position": error})
