"""LeWM's predictor: a frame-causal transformer that the action steers through adaptive LayerNorm (AdaLN-zero)."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.lewm import projector
from wmbench.models.attention import Attention, FeedForward, KeysValues, Memory
from wmbench.models.window import WindowPredictor


class AdaLNPredictor(WindowPredictor):
    """Every token of frame t predicts the same token of frame t + 1 from frames up to t and their actions.

    A block's shift, scale and gate come from the action embedding of the same frame and start at zero, so a new predictor
    is a constant in its action. Each sub-layer is normalised twice, by the block and by itself, as in the release.

    Args:
        dim: features of a token of z.
        action_dim: of an action block, frameskip x action size.
        smoothed_dim: of the action encoder's first, linear layer.
        projector_dim: hidden width of the projector with BatchNorm behind the last layer.
    """

    def __init__(
        self,
        dim: int,
        num_tokens: int,
        num_hist: int,
        action_dim: int,
        smoothed_dim: int,
        depth: int,
        num_heads: int,
        head_dim: int,
        mlp_dim: int,
        dropout: float,
        projector_dim: int,
    ):
        super().__init__(num_hist)
        self.num_tokens = num_tokens
        self.action_encoder = nn.Sequential(
            nn.Linear(action_dim, smoothed_dim), nn.Linear(smoothed_dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim)
        )
        self.pos_embedding = nn.Parameter(torch.randn(1, num_hist * num_tokens, dim))
        self.layers = nn.ModuleList(AdaLNBlock(dim, num_heads, head_dim, mlp_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.projector = projector(dim, projector_dim, dim)

    def forward(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        steer = self.action_encoder(action).repeat_interleave(self.num_tokens, dim=1)
        x = rearrange(z, "b t n d -> b (t n) d")
        x = x + self.pos_embedding[:, : x.shape[1]]
        for layer in self.layers:
            x = layer(x, steer, self.num_tokens)
        x = self.projector(rearrange(self.norm(x), "b l d -> (b l) d"))
        return rearrange(x, "(b t n) d -> b t n d", b=len(z), n=self.num_tokens)

    def extend(
        self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], past: Memory, keep: bool
    ) -> tuple[Float[Tensor, "B N D"], Memory]:
        steer = self.action_encoder(action).repeat_interleave(self.num_tokens, dim=1)
        x = rearrange(z, "b t n d -> b (t n) d")
        first = past[0][0].shape[2] if past else 0
        x = x + self.pos_embedding[:, first : first + x.shape[1]]
        memory: Memory = []
        for index, layer in enumerate(self.layers):
            asked = self.num_tokens if index == len(self.layers) - 1 else x.shape[1]
            x, kept = layer.extend(x, steer, self.num_tokens, past[index] if past else None, asked)  # type: ignore[operator]
            memory += [kept] if keep else []
        x = self.projector(rearrange(self.norm(x), "b n d -> (b n) d"))
        return rearrange(x, "(b n) d -> b n d", b=len(z)), memory


class AdaLNBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int, head_dim: int, mlp_dim: int, dropout: float):
        super().__init__()
        self.attn = Attention(dim, num_heads, head_dim, dropout)
        self.mlp = FeedForward(dim, mlp_dim, dropout)
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        modulation = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(modulation.weight)
        nn.init.zeros_(modulation.bias)
        self.modulation = nn.Sequential(nn.SiLU(), modulation)

    def forward(self, x: Float[Tensor, "B L D"], steer: Float[Tensor, "B L D"], num_tokens: int) -> Float[Tensor, "B L D"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(steer).chunk(6, dim=-1)
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1, num_tokens)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)

    def extend(
        self, x: Float[Tensor, "B L D"], steer: Float[Tensor, "B L D"], num_tokens: int, past: KeysValues | None, asked: int
    ) -> tuple[Float[Tensor, "B Q D"], KeysValues]:
        """The last `asked` tokens of x behind this layer, with the keys and values of all; see Attention.extend."""
        modulated = self.modulation(steer)
        shift1, scale1, *_ = modulated.chunk(6, dim=-1)
        seen, kept = self.attn.extend(self.norm1(x) * (1 + scale1) + shift1, num_tokens, past, asked)
        _, _, gate1, shift2, scale2, gate2 = modulated[:, x.shape[1] - asked :].chunk(6, dim=-1)
        x = x[:, x.shape[1] - asked :] + gate1 * seen
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2), kept
