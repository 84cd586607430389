"""DINO-WM's predictor: a ViT over the tokens of up to num_hist frames, causal from frame to frame."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.transformer import Attention, FeedForward


class FrameCausalViT(nn.Module):
    """Every token of frame t predicts the same token of frame t + 1 from frames up to t and their actions.

    The action embedding is appended to each token's features and dropped again on the way out. Positions are learned, one
    a frame slot and token, from N(0, 1); the final LayerNorm's output is the prediction, as in the original.

    Args:
        dim: features of a token of z (visual and proprio).
        action_dim: of an action block, frameskip x action size.
    """

    def __init__(
        self,
        dim: int,
        num_tokens: int,
        num_hist: int,
        action_dim: int,
        action_embed_dim: int,
        depth: int,
        num_heads: int,
        head_dim: int,
        mlp_dim: int,
        dropout: float,
    ):
        super().__init__()
        self.num_tokens, self.dim = num_tokens, dim
        width = dim + action_embed_dim
        self.action_encoder = nn.Linear(action_dim, action_embed_dim)
        self.pos_embedding = nn.Parameter(torch.randn(1, num_hist * num_tokens, width))
        self.layers = nn.ModuleList(
            nn.ModuleList([Attention(width, num_heads, head_dim, dropout), FeedForward(width, mlp_dim, dropout)])
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        """Frame t of the result follows frame t of z under action[:, t]."""
        tiled = repeat(self.action_encoder(action), "b t a -> b t n a", n=self.num_tokens)
        x = rearrange(torch.cat([z, tiled], dim=-1), "b t n d -> b (t n) d")
        x = x + self.pos_embedding[:, : x.shape[1]]
        for attention, feed_forward in self.layers:  # type: ignore[misc]
            x = x + attention(x, self.num_tokens)
            x = x + feed_forward(x)
        return rearrange(self.norm(x)[..., : self.dim], "b (t n) d -> b t n d", n=self.num_tokens)
