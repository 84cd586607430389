"""V-JEPA 2.1's ViT/16, frozen (arXiv 2603.14482): V-JEPA 2 that also takes a single image."""

from collections import OrderedDict
from functools import partial
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.vjepa2 import PREFIX, VJEPA2, Architecture
from wmbench.encoders.weights import load_strictly, read_state

TRAINED_GRID = 16  # patches per side in training, onto which the positions of every grid are stretched


class VJEPA21(VJEPA2):
    """VJEPA2 with temporal="image": a single frame, by a patch layer of its own; "still" and "pair" are clips as there.

    Its files are official .pt only. The code of the release takes their "ema_encoder" (B and L, which are distilled) or
    "target_encoder" (g and G); "encoder" is the network before averaging.
    """

    modes = ("image", "still", "pair")
    entries = ("ema_encoder", "target_encoder", "encoder")

    def preprocess(self, visual: Tensor) -> Float[Tensor, "F 3 T h w"]:
        """A clip of one or two frames for each frame (B T h w 3) uint8, which is the last of them."""
        clips = super().preprocess(visual)
        return clips[:, :, 1:] if self.temporal == "image" else clips

    def tokens(self, pixels: Float[Tensor, "F 3 T h w"]) -> Float[Tensor, "F M D"]:
        """Tokens of images (T = 1) or clips, time slot by time slot, each of them row by row."""
        return self.trunk(pixels)

    def build_trunk(self, sizes: Architecture) -> nn.Module:
        return VideoViT(sizes)

    def load_trunk(self, path: Path, entry: str) -> None:
        """Fill the trunk, which may be on the meta device; its names are those of the official file."""
        names = {name: PREFIX + name for name in self.trunk.state_dict()}
        load_strictly(self.trunk, read_state(path, entry), f"{path} is not this V-JEPA 2.1", names)


class VideoViT(nn.Module):
    """Patches or tubelets, a learned vector that tells which of the two, blocks with rotary positions, a norm.

    The norms before the last of `norms_block` are of earlier blocks' features, which only training reads.
    """

    def __init__(self, sizes: Architecture):
        super().__init__()
        width, patch = sizes.embed_dim, sizes.patch_size
        self.head_dim = width // sizes.num_heads

        def patch_layer(frames: int) -> nn.Module:
            kernel = (frames, patch, patch)
            return nn.Sequential(OrderedDict(proj=nn.Conv3d(3, width, kernel, stride=kernel)))

        self.patch_embed, self.patch_embed_img = patch_layer(sizes.tubelet_size), patch_layer(1)
        self.img_mod_embed = nn.Parameter(torch.zeros(1, 1, width))
        self.video_mod_embed = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.depth))
        self.norms_block = nn.ModuleList(nn.LayerNorm(width, eps=sizes.layer_norm_eps) for _ in range(4))

    def forward(self, clip: Float[Tensor, "F 3 T h w"]) -> Float[Tensor, "F M D"]:
        is_image = clip.shape[2] == 1
        patches = (self.patch_embed_img if is_image else self.patch_embed)(clip)
        x = rearrange(patches, "f d t h w -> f (t h w) d") + (self.img_mod_embed if is_image else self.video_mod_embed)
        angles = rotary_angles(*patches.shape[2:], head_dim=self.head_dim, like=x)
        for block in self.blocks:
            x = block(x, angles)
        return self.norms_block[-1](x)


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, sizes: Architecture):
        super().__init__()
        width, hidden = sizes.embed_dim, int(sizes.embed_dim * sizes.mlp_ratio)
        self.num_heads = sizes.num_heads
        self.norm1 = nn.LayerNorm(width, eps=sizes.layer_norm_eps)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.norm2 = nn.LayerNorm(width, eps=sizes.layer_norm_eps)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            fc1=nn.Linear(width, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, width)
        )
        self.mlp = nn.Sequential(layers)

    def forward(self, x: Float[Tensor, "F M D"], angles: Float[Tensor, "M half"]) -> Float[Tensor, "F M D"]:
        qkv = self.attn["qkv"](self.norm1(x))
        q, k, v = rearrange(qkv, "f m (three h d) -> three f h m d", three=3, h=self.num_heads)
        mixed = nn.functional.scaled_dot_product_attention(rotate(q, angles), rotate(k, angles), v)
        x = x + self.attn["proj"](rearrange(mixed, "f h m d -> f m (h d)"))
        return x + self.mlp(self.norm2(x))


def rotary_angles(frames: int, rows: int, columns: int, head_dim: int, like: Tensor) -> Float[Tensor, "M half"]:
    """Angles by which a token at (frame, row, column) turns each pair of a head's features.

    A third of the pairs tells each axis, at frequencies from 1 down to nearly 1/10000; pairs left over do not turn.
    Rows and columns are stretched onto the grid of training, frames are not.
    """
    pairs = head_dim // 3 // 2
    count = partial(torch.arange, device=like.device, dtype=like.dtype)
    stretched = [count(side) * (TRAINED_GRID - 1) / max(side - 1, 1) for side in (rows, columns)]
    position = torch.cartesian_prod(count(frames), *stretched)
    frequency = 1 / 10000 ** (count(pairs) / pairs)
    angles = (position[:, :, None] * frequency).flatten(1)
    return nn.functional.pad(angles, (0, head_dim // 2 - 3 * pairs))


def rotate(x: Float[Tensor, "F heads M d"], angles: Float[Tensor, "M half"]) -> Float[Tensor, "F heads M d"]:
    """Turn each pair of neighbouring features by its angle."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
