"""Any Vision Transformer of timm by name, frozen: its own grid, prefix tokens and pixel statistics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from wmbench.encoders.base import pixel_statistics
from wmbench.encoders.dinov2 import bake_positions, check_address, similar
from wmbench.encoders.vit import OUTPUTS, ViT
from wmbench.encoders.weights import Release, Weights, drawn_from, load_strictly, read_state

POSITIONS = ("timm", "hub")


class TimmViT(ViT):
    """Patch tokens, their mean, or only the CLS token, after the model's final norm, if it has one.

    Nothing is masked: MAE and I-JEPA hide patches only in training, and timm's networks have no such part.

    Args:
        model: timm's name. DINOv2 and DINOv3 have encoders of their own, which keep what timm computes otherwise.
        image_size: [pixels]; None for the size that the model was trained at.
        output: "patches", "cls" or "mean" (of the patches, one token).
        positions: how a learned position table is resampled for another size: "timm" (bicubic, antialiased) or "hub"
            (as DINO's authors do it).
        pixels: "native" (what timm's configuration of the model says) or "dino_wm" (0.5 and 0.5).
        weights: a file in timm's format, which the authors' may be; None for `release`.
        entry: what the authors' training checkpoint calls the network; None where a file holds nothing else.
        pretrained, seed: as in Weights.
        architecture: arguments of timm's class in place of the model's own, for small networks.

    Raises:
        ValueError: no such model, a size that the patch does not divide, an unknown option, or weights of another network.
    """

    def __init__(
        self,
        model: str,
        image_size: int | None,
        output: str,
        positions: str,
        pixels: str,
        pretrained: bool,
        weights: str | None,
        entry: str | None,
        release: Release,
        seed: int,
        architecture: Mapping[str, Any],
    ):
        for name, value, known in (("output", output, OUTPUTS), ("positions", positions, POSITIONS)):
            if value not in known:
                raise ValueError(f"{name} ({value!r}) must be one of {', '.join(known)}")
        origin = Weights(pretrained, weights, release, seed)
        if pretrained and weights is None and not release.path.exists():
            check_tagged(model)
        with origin.building():
            trunk = build_trunk(model, architecture)
        if output == "cls" and trunk.cls_token is None:
            raise ValueError(f"{model} has no CLS token; take output=patches")
        if positions == "hub" and (has_computed_buffers(trunk) or trunk.pos_embed is None):
            raise ValueError(f"{model} has more than a position table to resample; take positions=timm")
        native = trunk.patch_embed.img_size[0]
        size = native if image_size is None else image_size
        statistics = pixel_statistics(pixels)
        if pixels == "native":  # not ImageNet's for every model
            statistics["pixel_mean"], statistics["pixel_std"] = (trunk.pretrained_cfg[name] for name in ("mean", "std"))
        super().__init__(trunk, output, size, native // trunk.patch_embed.grid_size[0], statistics, origin)
        if pretrained:
            if has_computed_buffers(trunk):
                with drawn_from(seed):  # the meta device has not computed them
                    trunk = self.trunk = build_trunk(model, architecture)
            load_trunk(trunk, origin.path, entry, model)
        if positions == "hub":
            bake_positions(trunk, size)
        elif size != native:
            trunk.set_input_size((size, size))
        self.freeze()


def build_trunk(model: str, architecture: Mapping[str, Any]) -> Any:
    """timm's VisionTransformer, Eva or Beit at the size it was trained at, with random weights and no classifier."""
    import timm  # seconds to import, which other encoders need not wait for

    check_address(model, architecture)
    try:
        trunk = timm.create_model(model, num_classes=0, **architecture)
    except RuntimeError as error:  # what timm raises for a name it does not know
        raise ValueError(f"model ({model!r}) is none of timm {timm.__version__}'s: {error}{similar(model)}") from None
    if not all(hasattr(trunk, part) for part in ("patch_embed", "num_prefix_tokens", "set_input_size")):
        raise ValueError(f"model ({model!r}) has no row of tokens at one scale; take a plain ViT, such as one named vit_*")
    return trunk


def check_tagged(model: str) -> None:
    """Refuse a name without its tag, under which no weights are published.

    Raises:
        ValueError: with the names that have some.
    """
    import timm

    tagged = timm.list_models(f"{model}.*", pretrained=True) if "." not in model else []
    if tagged:
        raise ValueError(f"model ({model!r}) has weights under {len(tagged)} names; take one: {', '.join(tagged[:5])}")


def has_computed_buffers(trunk: nn.Module) -> bool:
    """Whether the network holds tensors that no file has, such as rotary frequencies."""
    return not {name for name, _ in trunk.named_buffers()} <= trunk.state_dict().keys()


def load_trunk(trunk: Any, path: Path, entry: str | None, model: str) -> None:
    """Fill the trunk, which may be on the meta device, with exactly its tensors; a classifier is left out."""
    state = {name.removeprefix("module."): tensor for name, tensor in read_state(path, entry).items()}
    classifier = trunk.pretrained_cfg["classifier"]
    for head in (classifier,) if isinstance(classifier, str) else classifier:
        state = {name: tensor for name, tensor in state.items() if name not in (f"{head}.weight", f"{head}.bias")}
    load_strictly(trunk, state, f"{path} is not {model}")
