"""DINOv3, frozen: its ViT/16 with four registers and rotary positions, and its ConvNeXt (arXiv 2508.10104)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import Encoder, pixel_statistics, square_grid
from wmbench.encoders.dinov2 import DINO, check_address
from wmbench.encoders.weights import REMEDY, Release, Weights, check_state, load_strictly, read_state

STRIDE = 16  # of ConvNeXt's third stage: the ViTs' patch


class DINOv3(DINO):
    """DINOv3's ViT/16 at any multiple of 16 pixels; see DINO for the arguments."""

    def fill(self, origin: Weights, model: str) -> None:
        if origin.pretrained:
            load_vit(self.trunk, origin.path, model)


def load_vit(trunk: Any, path: Path, model: str) -> None:
    """Fill timm's Eva, which may be on the meta device, from a file in the official or in timm's format.

    The released networks rotate by periods in bfloat16, which official files hold. timm's files hold none, and timm
    computes them in float32: features would be 2e-4 off, so that they are rounded here.

    Raises:
        ValueError: a file of another network; the message names the tensor.
    """
    state = read_state(path)
    own = trunk.state_dict()
    complaint = f"{path} is not {model}"
    if "storage_tokens" in state or "rope_embed.periods" in state:
        names = official_names(own)
        shapes = {official: own[name].shape for name, official in names.items()}
        shapes |= {"mask_token": own["cls_token"][0].shape, "rope_embed.periods": trunk.rope.periods.shape}
        check_state(complaint, state, shapes | official_bias_shapes(own), REMEDY)
        periods = state["rope_embed.periods"].float()
        biases = split_biases(state, own, complaint)
        state = {name: state[official] for name, official in names.items()} | biases
    else:
        check_state(complaint, state, {name: tensor.shape for name, tensor in own.items()}, REMEDY)
        count = len(trunk.rope.periods)
        periods = (trunk.rope.temperature ** (torch.arange(count) / count)).bfloat16().float()
    trunk.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    trunk.rope.periods = periods
    for block in trunk.blocks:
        if block.attn.k_bias is not None:
            block.attn.k_bias = torch.zeros_like(block.attn.q_bias)


def official_names(own: Mapping[str, Tensor]) -> dict[str, str]:
    """The official file's name of each of timm's tensors but the biases of query and value."""
    renamed = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    if any("mlp.fc1_g" in name for name in own):
        renamed |= {"mlp.fc1_g": "mlp.w1", "mlp.fc1_x": "mlp.w2", "mlp.fc2": "mlp.w3"}
    pattern = re.compile("|".join(renamed))
    kept = (name for name in own if not name.endswith(("q_bias", "v_bias")))
    return {name: pattern.sub(lambda match: renamed[match[0]], name) for name in kept}


def official_bias_shapes(own: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """One tensor per block for query, key and value, and a mask that turns the key's off."""
    layers = [name.removesuffix(".weight") for name in own if name.endswith("qkv.weight")]
    return {f"{layer}.{name}": own[f"{layer}.weight"].shape[:1] for layer in layers for name in ("bias", "bias_mask")}


def split_biases(state: Mapping[str, Tensor], own: Mapping[str, Tensor], complaint: str) -> dict[str, Tensor]:
    """Biases of query and value by timm's names. Its models up to 841 M parameters have none: there they must be zero."""
    biases = {}
    for name in (name.removesuffix(".bias") for name in state if name.endswith("qkv.bias")):
        query, key, value = (state[f"{name}.bias"] * state[f"{name}.bias_mask"]).chunk(3)
        attention = name.removesuffix("qkv")
        found = {f"{attention}q_bias": query, f"{attention}k_bias": key, f"{attention}v_bias": value}
        biases |= {bias: tensor for bias, tensor in found.items() if bias in own}
        if any(tensor.any() for bias, tensor in found.items() if bias not in own):
            raise ValueError(f"{complaint}: {name}.bias is not zero where this model has no bias{REMEDY}")
    return biases


class DINOv3ConvNeXt(Encoder):
    """The third of ConvNeXt's four stages: a token for 16 x 16 pixels, as a ViT/16 gives, before any final norm.

    Args:
        model: timm's name of the architecture.
        pixels, pretrained, weights, seed: as in DINO.
        depths, dims: blocks and channels of the four stages in place of the model's own, for small networks.

    Raises:
        ValueError: an image_size that 16 does not divide, an unknown option, or weights of another network.
    """

    def __init__(
        self,
        model: str,
        image_size: int,
        pixels: str,
        pretrained: bool,
        weights: str | None,
        release: Release,
        seed: int,
        depths: Sequence[int] | None,
        dims: Sequence[int] | None,
    ):
        statistics = pixel_statistics(pixels)
        grid = square_grid(image_size, STRIDE, "stride")
        origin = Weights(pretrained, weights, release, seed)
        with origin.building():
            network = build_convnext(model, depths, dims)
        super().__init__(
            image_size=image_size,
            grid=grid,
            embed_dim=network.feature_info[2]["num_chs"],
            **statistics,
            source=origin.source,
            licence=origin.licence,
        )
        if pretrained:
            load_convnext(network, origin.path, model)
        self.trunk = nn.Sequential(network.stem, *network.stages[:3])
        self.freeze()

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        return rearrange(self.trunk(pixels), "f d h w -> f (h w) d")


def build_convnext(model: str, depths: Sequence[int] | None, dims: Sequence[int] | None) -> Any:
    """timm's ConvNeXt without a classifier. LayerScale starts at 1, as in build_trunk."""
    import timm  # seconds to import, which other encoders need not wait for

    check_address(model, {})
    sizes: dict[str, Any] = {"depths": depths, "dims": dims}
    given = {name: tuple(size) for name, size in sizes.items() if size is not None}
    return timm.create_model(model, **{"num_classes": 0, "ls_init_value": 1.0, **given})


def load_convnext(network: Any, path: Path, model: str) -> None:
    """Fill timm's ConvNeXt, which may be on the meta device, from a file in the official or in timm's format.

    Raises:
        ValueError: a file of another network; the message names the tensor.
    """
    state = read_state(path)
    own = network.state_dict()
    is_official = any(name.startswith("downsample_layers") for name in state)
    names = {name: official_convnext_name(name) if is_official else name for name in own}
    twice = ("head.norm.weight", "head.norm.bias") if is_official else ()  # the final norm, which no stage reads
    also = {f"norms.3.{name.removeprefix('head.norm.')}": own[name].shape for name in twice}
    load_strictly(network, state, f"{path} is not {model}", names, also)


def official_convnext_name(name: str) -> str:
    """The official file's name of one of timm's tensors."""
    name = re.sub(r"^stages\.(\d)\.downsample", r"downsample_layers.\1", name.replace("stem", "downsample_layers.0"))
    name = name.replace("blocks.", "").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
    return name.removeprefix("head.")
