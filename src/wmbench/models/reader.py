"""What the heads on frozen latents share: the pairs they learn from, and one vector read from all tokens of frames."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn


class LatentPairs(NamedTuple):
    """Latents of two frames of an episode each, `blocks` model steps apart, and the normalised block after the first."""

    z: Float[Tensor, "B N D"]
    later: Float[Tensor, "B N D"]
    blocks: Int[Tensor, " B"]
    action: Float[Tensor, "B A"]


class Reader(nn.Module):
    """All tokens as one vector: each feature standardised, then narrowed token by token and mixed.

    Args:
        dim, num_tokens: features of a token, and tokens.
        token_width: features that each token keeps.
        width: features of the vector.
    """

    def __init__(self, dim: int, num_tokens: int, token_width: int, width: int):
        super().__init__()
        for name, value in (("token_width", token_width), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} ({value}) must be positive")
        self.standardise = nn.BatchNorm1d(dim, affine=False)
        self.narrow = nn.Linear(dim, token_width)
        self.mix = nn.Sequential(nn.Linear(num_tokens * token_width, width), nn.GELU(), nn.Linear(width, width), nn.GELU())

    def forward(self, tokens: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B W"]:
        features = self.standardise(tokens.flatten(0, -2)).view(tokens.shape)
        return self.mix(self.narrow(features).flatten(-2))
