"""Attention and feed-forward layers that both predictors are built of."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


def frame_causal_attention(
    q: Float[Tensor, "B heads L d"],
    k: Float[Tensor, "B heads L d"],
    v: Float[Tensor, "B heads L d"],
    num_tokens: int,
    dropout: float,
) -> Float[Tensor, "B heads L d"]:
    """Attention in which the num_tokens tokens of a frame see their own and all earlier frames.

    Frame by frame, so that no mask is made and nothing beyond it is computed.
    """
    if num_tokens == 1:
        return scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
    ends = range(num_tokens, q.shape[2] + 1, num_tokens)
    frames = [
        scaled_dot_product_attention(q[:, :, end - num_tokens : end], k[:, :, :end], v[:, :, :end], dropout_p=dropout)
        for end in ends
    ]
    return torch.cat(frames, dim=2)


class Attention(nn.Module):
    """Pre-norm multi-head attention over the tokens of consecutive frames."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(num_heads * head_dim, dim), nn.Dropout(dropout))

    def forward(self, x: Float[Tensor, "B L D"], num_tokens: int) -> Float[Tensor, "B L D"]:
        q, k, v = rearrange(self.to_qkv(self.norm(x)), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        out = frame_causal_attention(q, k, v, num_tokens, self.dropout if self.training else 0.0)
        return self.to_out(rearrange(out, "b h l d -> b l (h d)"))


class FeedForward(nn.Module):
    """Pre-norm two-layer perceptron."""

    def __init__(self, dim: int, mlp_dim: int, dropout: float):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, mlp_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_dim, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.net(x)
