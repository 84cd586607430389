"""The simulator's true state as the latent: the ceiling that no visual encoder should pass."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import Encoder, full_precision
from wmbench.shapes import Obs

PROPRIO_DIM = 4


class State(Encoder):
    """One token: the normalised (x, y, vx, vy), turned into embed_dim features by a fixed matrix. It looks at no pixel.

    The matrix has orthogonal columns, scaled so that mean squares over features are those of the weighted state; it only
    makes the predictor as wide as it is for other encoders.

    Args:
        velocity_weight: factor on the velocities. A goal is a place: at 1 a plan would rather stop anywhere than arrive.
        seed: of the matrix.
    """

    lift: Tensor

    def __init__(self, embed_dim: int, velocity_weight: float, seed: int):
        if embed_dim < PROPRIO_DIM:
            raise ValueError(f"embed_dim ({embed_dim}) must be at least {PROPRIO_DIM}, the size of the state")
        super().__init__(image_size=1, grid=(1, 1), embed_dim=embed_dim, source="the simulator's state")
        columns = torch.randn(embed_dim, PROPRIO_DIM, generator=torch.Generator().manual_seed(seed))
        weight = torch.tensor([1.0, 1.0, velocity_weight, velocity_weight])
        self.register_buffer("lift", torch.linalg.qr(columns).Q * weight * (embed_dim / PROPRIO_DIM) ** 0.5)
        self.freeze()

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        raise TypeError("the state encoder reads proprio, not pixels")

    def forward(self, obs: Obs) -> Float[Tensor, "B T N D"]:
        with full_precision(self.lift.device):
            return nn.functional.linear(obs["proprio"], self.lift)[:, :, None]
