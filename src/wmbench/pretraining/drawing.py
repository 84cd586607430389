"""Drawing a frame from an encoder's tokens, also from a single one."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.scratch import Scratch


class Drawing(nn.Module):
    """A decoder of a map; a single token is spread over the map by a linear layer first."""

    def __init__(self, encoder: Scratch, decoder: nn.Module):
        super().__init__()
        num_cells, dim = encoder.map_grid[0] * encoder.map_grid[1], encoder.embed_dim
        self.spread = nn.Identity() if encoder.num_tokens == num_cells else nn.Linear(dim, num_cells * dim)
        self.num_cells, self.decoder = num_cells, decoder

    def forward(self, tokens: Float[Tensor, "F N D"]) -> Float[Tensor, "F 3 h w"]:
        """Pixels, which should be in [-1, 1]."""
        spread = rearrange(self.spread(tokens), "f n (m d) -> f (n m) d", d=tokens.shape[-1])
        return self.decoder(spread)[0]
