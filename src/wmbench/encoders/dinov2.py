"""DINOv2's ViT/14, frozen, with the position table of the official hub (arXiv 2304.07193; registers 2309.16588)."""

from abc import abstractmethod
from collections.abc import Mapping
from difflib import get_close_matches
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import pixel_statistics
from wmbench.encoders.vit import OUTPUTS, ViT
from wmbench.encoders.weights import REMEDY, Release, Weights, check_state, read_state

if TYPE_CHECKING:
    from timm.models import VisionTransformer


class DINO(ViT):
    """A frozen ViT: patch tokens, their mean, or only the CLS token, after the final norm.

    A subclass writes `fill`.

    Args:
        model: timm's name of the architecture.
        output: "patches", "cls" or "mean" (of the patches, one token).
        pixels: "native" (ImageNet's statistics) or "dino_wm" (0.5 and 0.5, which DINO-WM fed it).
        weights: a file in the official or in timm's format; None for `release`.
        pretrained, seed: as in Weights.
        architecture: arguments of timm's class in place of the model's own, for small networks.

    Raises:
        ValueError: an image_size that the patch does not divide, an unknown option, or weights of another network.
    """

    def __init__(
        self,
        model: str,
        image_size: int,
        output: str,
        pixels: str,
        pretrained: bool,
        weights: str | None,
        release: Release,
        seed: int,
        architecture: Mapping[str, Any],
    ):
        if output not in OUTPUTS:
            raise ValueError(f"output ({output!r}) must be one of {', '.join(OUTPUTS)}")
        statistics = pixel_statistics(pixels)
        origin = Weights(pretrained, weights, release, seed)
        with origin.building():
            trunk = build_trunk(model, architecture)
        super().__init__(trunk, output, image_size, trunk.patch_embed.patch_size[0], statistics, origin)
        self.fill(origin, model)
        self.freeze()

    @abstractmethod
    def fill(self, origin: Weights, model: str) -> None:
        """Complete the trunk: its weights, unless it is untrained, and its positions for the image size."""


class DINOv2(DINO):
    """DINOv2's ViT/14; see DINO for the arguments."""

    def fill(self, origin: Weights, model: str) -> None:
        if origin.pretrained:
            load_trunk(self.trunk, origin.path, model)
        bake_positions(self.trunk, self.image_size)


def build_trunk(model: str, architecture: Mapping[str, Any]) -> Any:
    """timm's VisionTransformer (DINOv2) or Eva (DINOv3) at the size it was trained at, with random weights.

    LayerScale starts at 1 as in the official builder: at timm's 1e-5 an untrained network would be its patch layer.
    """
    import timm  # seconds to import, which other encoders need not wait for

    check_address(model, architecture)
    return timm.create_model(model, num_classes=0, **{"init_values": 1.0, **architecture})


def check_address(model: str, architecture: Mapping[str, Any]) -> None:
    """Refuse an address in place of a name, which timm would try to reach five times over, or of a size.

    Raises:
        ValueError: with the name that it ends in, or similar ones.
    """
    if places := [name for name in architecture if name.startswith(("pretrained", "checkpoint", "cache"))]:
        raise ValueError(f"architecture.{places[0]} would have timm load weights, which weights= and release name; drop it")
    name = model.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    if name != model:
        import timm

        meant = f"; take encoder.model={name}" if timm.is_model(name.partition(".")[0]) else similar(name)
        raise ValueError(f"model ({model!r}) is an address, where timm's plain name is needed{meant}")


def similar(model: str) -> str:
    """`; similar: a, b` among the names that have weights, or nothing."""
    import timm

    near = get_close_matches(model, timm.list_models(pretrained=True), n=3)
    return f"; similar: {', '.join(near)}" if near else ""


def load_trunk(trunk: "VisionTransformer", path: Path, model: str) -> None:
    """Fill the trunk, which may be on the meta device, from a file in the official or in timm's format.

    The official one has a mask token, which only training uses; with registers, timm has other names and has added
    the CLS token's position to the token.
    """
    state = read_state(path)
    shapes = {name: tensor.shape for name, tensor in trunk.state_dict().items()}
    is_official = "mask_token" in state or "register_tokens" in state
    if is_official:
        shapes["mask_token"] = torch.Size([1, trunk.embed_dim])
        if trunk.num_reg_tokens:
            shapes["register_tokens"] = shapes.pop("reg_token")
            shapes["pos_embed"] = torch.Size([1, 1 + trunk.patch_embed.num_patches, trunk.embed_dim])
    check_state(f"{path} is not {model}", state, shapes, REMEDY)
    if is_official:
        del state["mask_token"]
        if trunk.num_reg_tokens:
            state["reg_token"] = state.pop("register_tokens")
            state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
            state["pos_embed"] = state["pos_embed"][:, 1:]
    trunk.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)


@torch.no_grad()
def bake_positions(trunk: "VisionTransformer", image_size: int) -> None:
    """Turn the trunk into one for square images of another size, its position table resampled once."""
    assert trunk.pos_embed is not None
    prefix = trunk.pos_embed.shape[1] - trunk.patch_embed.num_patches
    trunk.patch_embed.set_input_size((image_size, image_size))
    special, table = trunk.pos_embed[:, :prefix], trunk.pos_embed[:, prefix:]
    table = hub_positions(table, trunk.patch_embed.grid_size[0], antialias=trunk.num_reg_tokens > 0)
    trunk.pos_embed = nn.Parameter(torch.cat([special, table], dim=1))


def hub_positions(table: Float[Tensor, "1 n D"], side: int, antialias: bool) -> Float[Tensor, "1 m D"]:
    """A square table of patch positions for side x side patches, by the official hub's rule.

    That scales by (side + 0.1) / old side, and for models with registers resizes to the side with antialiasing. The
    rules of timm and transformers differ from the first one; features would be 3% and 1.5% off.
    """
    old = isqrt(table.shape[1])
    if side == old:
        return table
    image = rearrange(table, "1 (h w) d -> 1 d h w", h=old)
    if antialias:
        image = nn.functional.interpolate(image, (side, side), mode="bicubic", antialias=True)
    else:
        scale = (side + 0.1) / old
        image = nn.functional.interpolate(image, scale_factor=(scale, scale), mode="bicubic")
    return rearrange(image, "1 d h w -> 1 (h w) d")
