"""V-JEPA 2's video ViT/16, frozen (arXiv 2506.09985): two frames make the tokens of one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import Encoder, pixel_statistics, square_grid
from wmbench.encoders.weights import REMEDY, Release, Weights, check_state, read_state
from wmbench.files import parse_json, regular

PREFIX = "module.backbone."  # of every name in an official file
QKV = ("query", "key", "value")  # in the order in which an official file stacks them


@dataclass(frozen=True)
class Architecture:
    """Sizes of the network. Positions are rotations (RoPE) that count patches and tubelets; there are no other tokens."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: int | float = 4
    patch_size: int = 16
    tubelet_size: int = 2
    layer_norm_eps: float = 1e-6


class VJEPA2(Encoder):
    """Patch tokens after the final norm, of clips of two frames: one time slot, so one token per patch.

    With temporal="still" a frame is repeated, as V-JEPA 2-AC does, and its tokens depend on nothing else. With "pair"
    its predecessor in obs comes before it, one model step (frameskip environment steps) earlier, and tokens tell
    motion. A frame without a predecessor is a still pair and looks at rest: the first one of obs, a goal, and any
    frame encoded by itself. The same place passed at speed is then some distance away from the goal.

    Args:
        temporal: "still" or "pair".
        pixels: "native" (ImageNet's statistics) or "dino_wm" (0.5 and 0.5, which DINO-WM fed every network).
        weights: a .safetensors file or a folder of them as transformers publishes, or an official .pt; None for `release`.
        entry: the network in an official .pt, "encoder" or "target_encoder", its moving average. The code of the release
            loads the first, and transformers' files were converted from it.
        pretrained, seed: as in Weights.
        architecture: the arguments of Architecture.

    Raises:
        ValueError: an image_size that the patch does not divide, an unknown option, or weights of another network.
    """

    modes: tuple[str, ...] = ("still", "pair")
    entries: tuple[str, ...] = ("encoder", "target_encoder")

    def __init__(
        self,
        image_size: int,
        temporal: str,
        pixels: str,
        pretrained: bool,
        weights: str | None,
        entry: str,
        release: Release,
        seed: int,
        architecture: Mapping[str, Any],
    ):
        for name, value, known in (("temporal", temporal, self.modes), ("entry", entry, self.entries)):
            if value not in known:
                raise ValueError(f"{name} ({value!r}) must be one of {', '.join(known)}")
        origin = Weights(pretrained, weights, release, seed)
        path = Path(weights).expanduser() if weights else release.path
        if entry != self.entries[0] and is_published(path):
            raise ValueError(f"entry ({entry!r}) chooses a network in an official .pt, which {path} is not; leave entry out")
        sizes = Architecture(**architecture)
        grid = square_grid(image_size, sizes.patch_size, "patch")
        network = f", {entry}" if pretrained and not is_published(path) else ""
        super().__init__(
            image_size=image_size,
            grid=grid,
            embed_dim=sizes.embed_dim,
            **pixel_statistics(pixels),
            source=origin.source + network,  # fails without a network before the seconds that transformers takes to import
            licence=origin.licence,
        )
        with origin.building():
            self.trunk = self.build_trunk(sizes)
        if pretrained:
            self.load_trunk(origin.path, entry)
        self.temporal, self.tubelet_size = temporal, sizes.tubelet_size
        self.lookback = int(temporal == "pair")
        self.freeze()

    def preprocess(self, visual: Tensor) -> Float[Tensor, "F 3 2 h w"]:
        """A clip of two frames for each frame (B T h w 3) uint8, which is the second of them."""
        frames = rearrange(super().preprocess(visual), "(b t) c h w -> b t c h w", b=len(visual))
        before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1) if self.temporal == "pair" else frames
        return rearrange([before, frames], "two b t c h w -> (b t) c two h w")

    def tokens(self, pixels: Float[Tensor, "F 3 T h w"]) -> Float[Tensor, "F M D"]:
        """Tokens of clips, time slot by time slot, each of them row by row.

        Raises:
            ValueError: a size that the network was not built for, where it would count rows wrongly and say nothing, or
                frames that fill no tubelet, which it would drop.
        """
        num_frames, height, width = pixels.shape[2:]
        if (height, width) != (self.image_size, self.image_size):
            raise ValueError(f"a clip of {height} x {width} pixels does not fit image_size ({self.image_size}); set that")
        if num_frames % self.tubelet_size:
            raise ValueError(f"the frames of a clip ({num_frames}) must be a multiple of the tubelet ({self.tubelet_size})")
        return self.trunk(rearrange(pixels, "f c t h w -> f t c h w")).last_hidden_state

    def build_trunk(self, sizes: Architecture) -> nn.Module:
        """The encoder without its predictor, with random weights, for square frames of image_size.

        That size is part of the network in transformers, which numbers patches by it: features of 224-pixel frames would be
        4% off in a network for 256.
        """
        from transformers import VJEPA2Config, VJEPA2Model  # seconds to import, which other encoders need not wait for

        config = VJEPA2Config(
            crop_size=self.image_size,
            patch_size=sizes.patch_size,
            tubelet_size=sizes.tubelet_size,
            hidden_size=sizes.embed_dim,
            num_hidden_layers=sizes.depth,
            num_attention_heads=sizes.num_heads,
            mlp_ratio=sizes.mlp_ratio,
            layer_norm_eps=sizes.layer_norm_eps,
            pred_num_hidden_layers=0,
            attn_implementation="sdpa",  # type: ignore[call-arg]  # fused
        )
        return VJEPA2Model(config).encoder

    def load_trunk(self, path: Path, entry: str) -> None:
        """Fill the trunk, which may be on the meta device, from transformers' or from an official file.

        The predictor in both is left out, and so is the official file's position table, which rotations have replaced.
        """
        own = self.trunk.state_dict()
        if is_published(path):
            state = {name: tensor for name, tensor in read_published(path).items() if not name.startswith("predictor.")}
            names = {name: f"encoder.{name}" for name in own}
        else:
            state = read_state(path, entry)
            state.pop(f"{PREFIX}pos_embed", None)
            names = {name: official_name(name) for name in own}
        shapes = {}
        for name, tensor in own.items():
            rows = len(tensor) * (3 if ".qkv." in names[name] else 1)
            shapes[names[name]] = torch.Size([rows, *tensor.shape[1:]])
        check_state(f"{path} is not this V-JEPA 2", state, shapes, REMEDY)
        for name in own:
            tensor = state[names[name]]
            if ".qkv." in names[name]:
                tensor = tensor.chunk(3)[QKV.index(name.split(".")[-2])]
            own[name] = tensor.float()
        self.trunk.load_state_dict(own, assign=True)


def is_published(path: Path) -> bool:
    """Whether weights are in transformers' format; otherwise they are an official .pt."""
    return path.is_dir() or path.suffix == ".safetensors"


def read_published(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of a folder with one of them or with several and their index."""
    if path.is_file():
        return read_state(path)
    index = path / "model.safetensors.index.json"
    files = _listed(index) if index.exists() else {"model.safetensors"}
    if elsewhere := [file for file in files if Path(file).name != file or not file.endswith(".safetensors")]:
        raise ValueError(f"{index} names {elsewhere[0]!r}, which is no .safetensors file next to it; download it again")
    return {name: tensor for file in sorted(files) for name, tensor in read_state(path / file).items()}


def _listed(index: Path) -> set[str]:
    """Names of the files that an index lists."""
    try:
        return {str(file) for file in parse_json(regular(index).read_text())["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is damaged or no index of tensors ({error}); download it again") from None


def official_name(name: str) -> str:
    """The official file's name of a tensor; query, key and value are one there."""
    for ours, theirs in (
        ("embeddings.patch_embeddings.", "patch_embed."),
        ("layernorm.", "norm."),
        ("layer.", "blocks."),
        ("attention.", "attn."),
    ):
        name = name.replace(ours, theirs)
    return PREFIX + re.sub("|".join(QKV), "qkv", name)
