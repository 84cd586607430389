"""Inverse dynamics: which actions led from one frame to the next, so what can be controlled is what is kept."""

from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.scratch import Scratch
from wmbench.models.base import Losses
from wmbench.pretraining.base import Pretraining, mlp, summary
from wmbench.shapes import Batch


class Inverse(Pretraining):
    """The block of actions between the last two frames of a window, read from the means of all frames' tokens.

    Args:
        action_dim: numbers of a block.
        num_frames: of a window. Two show how far the ball went, but its way is mostly its speed before; three show that.
        frameskip: env steps of a block.
    """

    def __init__(self, encoder: Scratch, action_dim: int, num_frames: int, frameskip: int, hidden_dim: int):
        if num_frames < 2:
            raise ValueError(f"num_frames ({num_frames}) must be at least 2: actions lead from one frame to another")
        super().__init__(encoder)
        self.num_frames, self.frameskip = num_frames, frameskip
        self.read = mlp(num_frames * encoder.embed_dim, hidden_dim, action_dim)

    def forward(self, pixels: Float[Tensor, "B T 3 h w"], batch: Batch) -> Losses:
        z = summary(self.encoder, pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        error = nn.functional.mse_loss(self.read(z.flatten(1)), batch.action[:, -2])
        return Losses(error, {"action": error})
