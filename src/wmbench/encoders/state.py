"""The simulator's true state as the latent: the ceiling that no visual encoder should pass."""

from jaxtyping import Float
from torch import Tensor

from wmbench.encoders.base import Encoder
from wmbench.shapes import Obs


class State(Encoder):
    """One token: the normalised proprio (x, y, vx, vy), which in PointMaze is the whole state. It looks at no pixel."""

    def __init__(self, embed_dim: int):
        super().__init__(image_size=1, grid=(1, 1), embed_dim=embed_dim, frozen=True, source="no weights")
        self.freeze()

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        raise TypeError("the state encoder reads proprio, not pixels")

    def forward(self, obs: Obs) -> Float[Tensor, "B T N D"]:
        return obs["proprio"][:, :, None]
