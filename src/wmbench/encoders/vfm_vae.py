"""VFM-VAE's encoder (arXiv 2510.18457), frozen: SigLIP2 at twice the size, three levels of it narrowed to a small latent."""

import re
from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import DINO_WM_MEAN, DINO_WM_STD, Encoder, square_grid
from wmbench.encoders.timm_vit import build_trunk, load_trunk
from wmbench.encoders.weights import Release, Weights, load_strictly, read_state

if TYPE_CHECKING:
    from timm.models import VisionTransformer

UPSCALE = 2  # of the frame before SigLIP2
UNSHUFFLE = 2  # of its patches afterwards: a token of the latent covers 2 x 2 of them
PART = "ldm_adapter."
DECODER_SIDE = ("ldm_adapter.post_quant.", "ldm_adapter.linear_proj.")  # the decoder's entrance, and a training loss
TOWER = "vfm_encoder."  # the authors' copy of SigLIP2; a file that has it holds the whole autoencoder


class VFMVAE(Encoder):
    """The mean of the posterior: two calls agree, where the original samples. In float32, where the original has bfloat16.

    Args:
        model: timm's name of the SigLIP2 vision tower.
        image_size: side of the frame before it is upscaled [pixels].
        level_dim: features that a patch keeps of a level; a narrower tower keeps all.
        z_dim: features of a token.
        weights: the adapter's file; None for `release`.
        trunk_weights: the tower's file in timm's format; None for `trunk_release`.
        pretrained, seed: as in Weights, of both.
        architecture: arguments of timm's VisionTransformer in place of the model's own, for small networks.

    Raises:
        ValueError: an image_size that does not come out in whole tokens, or weights of another network.
    """

    def __init__(
        self,
        model: str,
        image_size: int,
        level_dim: int,
        z_dim: int,
        pretrained: bool,
        weights: str | None,
        trunk_weights: str | None,
        release: Release,
        trunk_release: Release,
        seed: int,
        architecture: Mapping[str, Any],
    ):
        origin = Weights(pretrained, weights, release, seed)
        trunk_origin = Weights(pretrained, trunk_weights, trunk_release, seed)
        with origin.building():
            trunk = build_trunk(model, architecture)
            adapter = Adapter(trunk.embed_dim, min(level_dim, trunk.embed_dim), z_dim)
        grid = square_grid(image_size, trunk.patch_embed.patch_size[0] * UNSHUFFLE // UPSCALE, "token's side")
        source, licence = origin.source, origin.licence
        if pretrained:
            source, licence = f"{source} over {trunk_origin.source}", f"{licence}; SigLIP2 {trunk_origin.licence}"
            load_adapter(adapter, origin.path)
            load_trunk(trunk, trunk_origin.path, None, model)
        super().__init__(
            image_size=image_size,
            grid=grid,
            embed_dim=z_dim,
            prefix_tokens=trunk.num_prefix_tokens,
            pixel_mean=DINO_WM_MEAN,
            pixel_std=DINO_WM_STD,
            source=source,
            licence=licence,
        )
        resize_positions(trunk, UPSCALE * image_size)
        trunk.attn_pool = None  # SigLIP2's own pooling: weights that no token depends on
        self.trunk, self.adapter = trunk, adapter
        self.freeze()

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        return self.adapter(self.levels(nn.functional.interpolate(pixels, scale_factor=UPSCALE, mode="bilinear")))

    def levels(self, pixels: Float[Tensor, "F 3 h w"]) -> list[Float[Tensor, "F n C"]]:
        """The tower's patches before its first block, after half of its blocks, and after the last with the final norm."""
        x = self.trunk.patch_embed(pixels) + self.trunk.pos_embed
        states = [x]
        for block in self.trunk.blocks:
            x = block(x)
            states.append(x)
        return [states[0], states[len(self.trunk.blocks) // 2], self.trunk.norm(x)]


class Adapter(nn.Module):
    """Takes three levels of a vision tower, row-major, to a Gaussian posterior on a grid of half the side.

    Args:
        width: of the tower.
        level_dim: features that a patch keeps of a level.
        z_dim: features of the latent.

    Raises:
        ValueError: a dimension that does not divide the one before it.
    """

    def __init__(self, width: int, level_dim: int, z_dim: int):
        super().__init__()
        self.z_dim = z_dim
        self.level = nn.ModuleList(Projection(width, level_dim) for _ in range(3))
        self.final = Projection(3 * UNSHUFFLE**2 * level_dim, 2 * z_dim)

    def forward(self, levels: Sequence[Float[Tensor, "F n C"]]) -> Float[Tensor, "F N Z"]:
        """The posterior's mean."""
        return self.moments(levels)[..., : self.z_dim]

    def moments(self, levels: Sequence[Float[Tensor, "F n C"]]) -> Float[Tensor, "F N Y"]:
        """Mean and log-variance of the posterior."""
        return self.final(torch.cat(self.gather(levels), dim=-1))

    def gather(self, levels: Sequence[Float[Tensor, "F n C"]]) -> list[Float[Tensor, "F N E"]]:
        """Each level narrowed, and the patches under a token of the latent side by side."""
        narrow = [project(level) for project, level in zip(self.level, levels, strict=True)]
        side = isqrt(narrow[0].shape[1])
        return [
            rearrange(x, "f (h p w q) d -> f (h w) (d p q)", h=side // UNSHUFFLE, p=UNSHUFFLE, q=UNSHUFFLE) for x in narrow
        ]


class Projection(nn.Module):
    """To a smaller width: a linear path and an attention path, then a residual MLP. Attributes are named as in the file."""

    def __init__(self, width: int, dim: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), AveragingAttention(width, dim)
        self.norm3, self.proj = nn.LayerNorm(width), nn.Linear(width, dim)
        self.norm2, self.mlp = nn.LayerNorm(dim), GatedMLP(dim)

    def forward(self, x: Float[Tensor, "F N C"]) -> Float[Tensor, "F N D"]:
        x = self.proj(self.norm3(x)) + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class AveragingAttention(nn.Module):
    """Heads that are each as wide as the output, and averaged."""

    zero_k_bias: Tensor

    def __init__(self, width: int, dim: int):
        super().__init__()
        if dim < 1 or width % dim:
            raise ValueError(f"the adapter narrows {width} features to {dim}, which must be a divisor: a head has {dim}")
        self.num_heads = width // dim
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("zero_k_bias", torch.zeros(width))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "F N C"]) -> Float[Tensor, "F N D"]:
        x = self.qkv(x) + torch.cat([self.q_bias, self.zero_k_bias, self.v_bias])
        query, key, value = rearrange(x, "f n (qkv heads d) -> qkv f heads n d", qkv=3, heads=self.num_heads)
        return self.proj(nn.functional.scaled_dot_product_attention(query, key, value).mean(dim=1))


class GatedMLP(nn.Module):
    """A gated MLP with a norm of its own after the block's, whose eps is timm's."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.w0, self.w1, self.w2 = nn.Linear(dim, 2 * dim), nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Float[Tensor, "F N D"]) -> Float[Tensor, "F N D"]:
        x = self.norm(x)
        return self.w2(nn.functional.gelu(self.w0(x), approximate="tanh") * self.w1(x))


def load_adapter(adapter: Adapter, path: Path) -> None:
    """Fill the adapter, which may be on the meta device, from a file with the official names.

    The release keeps it in `G_ema`, with SigLIP2 and the decoder; a file of only the adapter's tensors is read as well.

    Raises:
        ValueError: damaged, of another network, or objects that only the original's code could build.
    """
    try:
        state = read_state(path, "G_ema")
    except ValueError as error:
        raise ValueError(f"{error}; or, where the original's code is installed, save only G_ema's state dict") from None
    part = PART if any(name.startswith(TOWER) for name in state) else ""
    state = {name: t for name, t in state.items() if name.startswith(part) and not name.startswith(DECODER_SIDE)}
    names = {name: official_name(name) for name in adapter.state_dict()}
    remedy = "; give weights= the released file, or only its adapter"
    load_strictly(adapter, state, f"{path} is not this VFM-VAE", names, remedy=remedy)


def official_name(name: str) -> str:
    """The official name of an adapter's tensor: level.1.norm1.bias is ldm_adapter.patch_quants.1.0.blocks.0.norm1.bias."""
    name = re.sub(r"^level\.(\d)", r"patch_quants.\1.0.blocks.0", name)
    return PART + re.sub(r"^final", "final_quant.blocks.0", name)


@torch.no_grad()
def resize_positions(trunk: "VisionTransformer", size: int) -> None:
    """Turn the tower into one for square images of another size, by the rule of transformers, which VFM-VAE uses."""
    assert trunk.pos_embed is not None
    old = trunk.patch_embed.grid_size[0]
    trunk.patch_embed.set_input_size((size, size))
    grid = trunk.patch_embed.grid_size
    if grid != (old, old):
        table = rearrange(trunk.pos_embed, "1 (h w) d -> 1 d h w", h=old)
        table = nn.functional.interpolate(table, grid, mode="bicubic")
        trunk.pos_embed = nn.Parameter(rearrange(table, "1 d h w -> 1 (h w) d"))
