"""Any configured encoder at tiny size, from random weights in the format in which its authors publish them."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import Tensor

from wmbench.encoders import dinov2, dinov3, efficientnet, timm_vit
from wmbench.encoders.base import Encoder
from wmbench.encoders.lewm import LeWM
from wmbench.encoders.resnet import ResNet18
from wmbench.encoders.scratch import Scratch
from wmbench.encoders.tokenizer import Tokenizer
from wmbench.encoders.vfm_vae import VFMVAE
from wmbench.encoders.vjepa2 import VJEPA2, Architecture
from wmbench.encoders.vjepa2_1 import VJEPA21, VideoViT

GOLDEN = Path(__file__).parents[1] / "data"
VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3}
VIDEO = {"embed_dim": 48, "depth": 3, "num_heads": 4}  # the recording's
TOWER = {"img_size": 128, "embed_dim": 64, "depth": 2, "num_heads": 4}  # under the recorded adapter
STAGES = {"depths": [1, 2, 1, 1], "dims": [8, 12, 20, 24]}
LEWM = {"image_size": 28, "width": 12, "depth": 1, "num_heads": 2, "projector_dim": 16}


def shrink(encoder: DictConfig, folder: Path) -> None:
    """Make the encoder of a configuration a tiny one, with weights from files that are written into the folder.

    A new family that has no writer here yet stays as it is, untrained.
    """
    kind = get_class(encoder._target_)
    family = next((family for family in FAMILIES if issubclass(kind, family)), None)
    if family is not None:
        FAMILIES[family](encoder, folder)
    elif "pretrained" in encoder:
        encoder.pretrained = False


def fill(shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Random tensors, none of them constant as initial ones are."""
    generator = torch.Generator().manual_seed(0)
    return {name: 0.2 * torch.randn(tensor.shape, generator=generator) for name, tensor in shapes.items()}


def as_dinov2(encoder: DictConfig, folder: Path) -> None:
    encoder.architecture, encoder.image_size = VIT, 42
    with torch.device("meta"):
        trunk = dinov2.build_trunk(encoder.model, VIT)
    state = fill(trunk.state_dict() | {"mask_token": torch.empty(1, trunk.embed_dim)})
    if trunk.num_reg_tokens:  # the official table has a position for CLS, too, which timm adds to the token
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([state["cls_token"], state["pos_embed"]], dim=1)
    encoder.weights = save(state, folder / "dinov2.pth")


def as_dinov3(encoder: DictConfig, folder: Path) -> None:
    encoder.architecture, encoder.image_size = VIT, 48
    with torch.device("meta"):
        trunk = dinov2.build_trunk(encoder.model, VIT)
    own = trunk.state_dict()
    state = fill({official: own[name] for name, official in dinov3.official_names(own).items()})
    state |= {name: torch.zeros(shape) for name, shape in dinov3.official_bias_shapes(own).items()}
    state |= {"mask_token": torch.zeros(1, trunk.embed_dim), "rope_embed.periods": torch.ones(trunk.rope.periods.shape)}
    encoder.weights = save(state, folder / "dinov3.pth")


def as_convnext(encoder: DictConfig, folder: Path) -> None:
    encoder.depths, encoder.dims, encoder.image_size = *STAGES.values(), 48
    with torch.device("meta"):
        own = dinov3.build_convnext(encoder.model, **STAGES).state_dict()
    state = fill({dinov3.official_convnext_name(name): tensor for name, tensor in own.items()})
    state |= {f"norms.3.{name}": state[f"norm.{name}"].clone() for name in ("weight", "bias")}
    encoder.weights = save(state, folder / "convnext.pth")


def as_timm(encoder: DictConfig, folder: Path) -> None:
    encoder.architecture, encoder.image_size = VIT, 42 if "patch14" in encoder.model else 48
    encoder.weights = save(timms(encoder.model, VIT), folder / "timm.pth", encoder.entry)


def timms(model: str, architecture: dict[str, int]) -> dict[str, Tensor]:
    with torch.device("meta"):
        trunk = timm_vit.build_trunk(model, architecture)
    return fill(trunk.state_dict())


def as_vjepa2(encoder: DictConfig, folder: Path) -> None:
    encoder.architecture, encoder.image_size = VIDEO, 48
    recorded = torch.load(GOLDEN / "vjepa2_encoder_tiny.pt", weights_only=True)["encoder"]
    encoder.weights = save(recorded, folder / "vjepa2.pt", encoder.entry)


def as_vjepa2_1(encoder: DictConfig, folder: Path) -> None:
    encoder.architecture, encoder.image_size = VIDEO, 48
    state = {f"module.backbone.{n}": t for n, t in fill(VideoViT(Architecture(**VIDEO)).state_dict()).items()}
    encoder.weights = save(state, folder / "vjepa2_1.pt", encoder.entry)


def as_vfm_vae(encoder: DictConfig, folder: Path) -> None:
    encoder.architecture, encoder.image_size, encoder.level_dim, encoder.z_dim = TOWER, 64, 8, 4
    recorded = torch.load(GOLDEN / "vfm_vae_adapter_tiny.pt", weights_only=True)["G_ema"]
    encoder.weights = save(recorded, folder / "vfm_vae.pth", "G_ema")
    save_file(timms(encoder.model, TOWER), folder / "siglip2.safetensors")
    encoder.trunk_weights = str(folder / "siglip2.safetensors")


@cache
def torchvisions() -> dict[str, Tensor]:
    """The one network that is not small: its size is no setting."""
    from torchvision.models import resnet18

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return resnet18().state_dict()


def as_resnet(encoder: DictConfig, folder: Path) -> None:
    encoder.image_size = 64
    state = {n: t for n, t in torchvisions().items() if not (encoder.prefix and n.startswith("fc."))}
    encoder.weights = save({encoder.prefix + n: t for n, t in state.items()}, folder / "resnet.pth")


def as_efficientnet(encoder: DictConfig, folder: Path) -> None:
    """Its size is no setting either."""
    encoder.image_size = 64
    encoder.weights = save(official_efficientnet(), folder / "efficientnet.pth")


@cache
def official_efficientnet() -> dict[str, Tensor]:
    with torch.device("meta"):
        own = efficientnet.build_network().state_dict()
    classifier = {name: torch.empty(shape) for name, shape in efficientnet.CLASSIFIER.items()}
    state = fill({official: own[name] for name, official in efficientnet.official_names(own).items()} | classifier)
    state |= {name: tensor.abs() + 0.5 for name, tensor in state.items() if name.endswith("running_var")}
    scales = {name: 1 + tensor for name, tensor in state.items() if "_bn" in name and name.endswith(".weight")}
    return state | scales  # near 1, so that what is seen still shows after twenty layers


def as_tokenizer(encoder: DictConfig, folder: Path) -> None:
    """Its head in the file that pretrain.py writes."""
    if "backbone" in encoder:
        shrink(encoder.backbone, folder)
    tokenizer = instantiate(encoder, for_training=True)
    tokenizer.save_head(folder / "head.safetensors", {})
    encoder.weights = str(folder / "head.safetensors")


def as_scratch(encoder: DictConfig, folder: Path) -> None:
    """In the file that pretrain.py writes."""
    encoder.image_size = 32
    instantiate(encoder, for_training=True).save_head(folder / "scratch.safetensors", {})
    encoder.weights = str(folder / "scratch.safetensors")


def as_lewm(encoder: DictConfig, folder: Path) -> None:
    encoder.update(LEWM)


FAMILIES: dict[type[Encoder], Callable[[Any, Path], None]] = {
    dinov2.DINOv2: as_dinov2,
    dinov3.DINOv3: as_dinov3,
    dinov3.DINOv3ConvNeXt: as_convnext,
    timm_vit.TimmViT: as_timm,
    VJEPA21: as_vjepa2_1,  # before its base
    VJEPA2: as_vjepa2,
    VFMVAE: as_vfm_vae,
    ResNet18: as_resnet,
    efficientnet.EfficientNetLite0: as_efficientnet,
    Tokenizer: as_tokenizer,
    LeWM: as_lewm,
    Scratch: as_scratch,
}


def save(state: dict[str, Tensor], path: Path, entry: str | None = None) -> str:
    """Write a pickle of tensors, within a training checkpoint where `entry` names them."""
    torch.save(state if entry is None else {entry: state, "epoch": 3}, path)
    return str(path)
