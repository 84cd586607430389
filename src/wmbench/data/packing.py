"""Tokens as bytes, in four roundings."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

# How far tokens that are computed again may be from stored ones, by L2 norm: other kernels, another device, other roundings.
TOLERANCE = {"float32": 5e-3, "float16": 5e-3, "bfloat16": 1e-2, "int8": 3e-2}


@dataclass(frozen=True)
class Packing:
    """Tokens as bytes.

    float16 rounds three bits finer than bfloat16 in the same space, on every device; the latter is for values beyond
    65,504. int8 stores each token as multiples of 1/127 of its largest feature, so none is off by more than 1/254 of that.

    Raises:
        ValueError: an unknown dtype.
    """

    num_tokens: int
    embed_dim: int
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in TOLERANCE:
            raise ValueError(f"cache.dtype ({self.dtype!r}) must be one of {', '.join(TOLERANCE)}")

    @property
    def num_bytes(self) -> int:
        """Bytes of one frame's tokens."""
        token = 4 + self.embed_dim if self.dtype == "int8" else self.embed_dim * getattr(torch, self.dtype).itemsize
        return self.num_tokens * token

    def pack(self, tokens: Float[Tensor, "*B N D"]) -> UInt8[Tensor, "*B bytes"]:
        """Round tokens and lay them out as bytes.

        Raises:
            ValueError: tokens that the dtype cannot hold, or that are no numbers.
        """
        tokens = tokens.float()
        if self.dtype == "int8":
            scale = tokens.abs().amax(-1, keepdim=True) / 127
            stored = (tokens / scale.clamp_min(torch.finfo(scale.dtype).tiny)).round().to(torch.int8)
            checked, parts = scale, [scale, stored]
        else:
            checked = tokens.to(getattr(torch, self.dtype))
            parts = [checked]
        if not checked.isfinite().all():
            if not tokens.isfinite().all():
                raise ValueError("the encoder gives tokens that are NaN or Inf; its weights or its frames are damaged")
            largest = tokens.abs().max().item()
            raise ValueError(f"tokens of up to {largest:.4g} do not fit cache.dtype={self.dtype}; try cache.dtype=bfloat16")
        return torch.cat([part.contiguous().flatten(-2).view(torch.uint8) for part in parts], dim=-1)

    def unpack(self, stored: UInt8[Tensor, "*B bytes"]) -> Float[Tensor, "*B N D"]:
        if self.dtype == "int8":
            scale = stored[..., : 4 * self.num_tokens].clone(memory_format=torch.contiguous_format).view(torch.float32)
            features = stored[..., 4 * self.num_tokens :].contiguous().view(torch.int8)
            return features.unflatten(-1, (self.num_tokens, self.embed_dim)) * scale[..., None]
        return stored.view(getattr(torch, self.dtype)).unflatten(-1, (self.num_tokens, self.embed_dim)).float()
