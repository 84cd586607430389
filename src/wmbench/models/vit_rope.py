"""A frame-causal ViT that knows how far apart frames are and not where in the window they stand (rotary positions)."""

import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.models.attention import Attention, Memory
from wmbench.models.vit import FrameCausalViT

BASE = 10_000.0  # of the wavelengths, as in RoFormer (Su et al. 2021)


def turned(x: Float[Tensor, "B heads L d"], frames: Float[Tensor, " L"]) -> Float[Tensor, "B heads L d"]:
    """Queries or keys turned by their frame, pair by pair: products of two depend only on how far apart their frames are."""
    half = x.shape[-1] // 2
    angles = frames[:, None] * BASE ** (-torch.arange(half, device=x.device) / half)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.split(half, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class RotaryAttention(Attention):
    """Attention whose frames are told apart by their distance to the newest one."""

    def place(self, x: Float[Tensor, "B heads L d"], num_tokens: int) -> Float[Tensor, "B heads L d"]:
        num_frames = x.shape[2] // num_tokens
        if num_frames == 1:
            return x
        return turned(x, torch.arange(1 - num_frames, 1, device=x.device).float().repeat_interleave(num_tokens))

    @staticmethod
    def one_back(keys: Float[Tensor, "B heads L d"]) -> Float[Tensor, "B heads L d"]:
        """Keys as one frame later sees them."""
        return turned(keys, -torch.ones(keys.shape[2], device=keys.device))


class RotaryViT(FrameCausalViT):
    """FrameCausalViT with one learned position per token, the same in every frame.

    When the window moves on, keys that are kept only turn by one frame. A rollout of H blocks therefore computes H frames,
    where learned places in the window need up to num_hist times as many. Through what is kept, deeper layers also see a
    little of frames that have left the window.

    Raises:
        ValueError: an odd head_dim, whose features make no pairs.
    """

    attention, slides = RotaryAttention, True

    def __init__(self, *, head_dim: int, **sizes: int | float):
        if head_dim % 2:
            raise ValueError(f"predictor.head_dim ({head_dim}) must be even: rotary positions turn pairs of features")
        super().__init__(head_dim=head_dim, **sizes)  # type: ignore[arg-type] - those of FrameCausalViT
        self.pos_embedding = torch.nn.Parameter(self.pos_embedding[:, : self.tokens_inside].detach().clone())

    def positions(self, first: int, number: int) -> Float[Tensor, "1 M W"]:
        return self.pos_embedding.repeat(1, number // self.tokens_inside, 1)

    def slide(self, memory: Memory) -> Memory:
        kept = (self.num_hist - 1) * self.tokens_inside
        if not kept:
            return []
        turn = self.attention.one_back  # type: ignore[attr-defined] - of a RotaryAttention
        return [(turn(keys[:, :, -kept:]), values[:, :, -kept:]) for keys, values in memory]
