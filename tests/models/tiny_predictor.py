"""A predictor that sees no window: what it remembers is one hidden state per token, however many frames it has seen."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.base import Predictor


class TinyRecurrent(Predictor):
    def __init__(self, dim: int, num_tokens: int, num_hist: int, action_dim: int, hidden_dim: int):
        super().__init__()
        self.gru = nn.GRU(dim + action_dim, hidden_dim, batch_first=True)
        self.out = nn.Linear(hidden_dim, dim)

    def forward(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        return self.advance(z, action, None)[0]

    def begin(self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], num_plans: int) -> tuple[Tensor, Tensor]:
        newest, hidden = z[:, -1:], z.new_zeros(1, len(z) * z.shape[2], self.gru.hidden_size)
        if past.shape[1]:
            _, hidden = self.advance(z[:, :-1], past, hidden)
        hidden = repeat(hidden, "1 (b n) h -> 1 (b s n) h", b=len(z), s=num_plans)
        return newest.repeat_interleave(num_plans, 0), hidden

    def step(self, state: tuple[Tensor, Tensor], action: Float[Tensor, "BS A"]) -> tuple[Float[Tensor, "BS N D"], tuple]:
        z, hidden = self.advance(state[0], action[:, None], state[1])
        return z[:, 0], (z, hidden)

    def advance(
        self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], hidden: Tensor | None
    ) -> tuple[Float[Tensor, "B T N D"], Tensor]:
        joined = torch.cat([z, repeat(action, "b t a -> b t n a", n=z.shape[2])], dim=3)
        seen, hidden = self.gru(rearrange(joined, "b t n d -> (b n) t d"), hidden)
        return z + rearrange(self.out(seen), "(b n) t d -> b t n d", n=z.shape[2]), hidden
