"""ResNet-18, frozen: one pooled vector or the 16-pixel map, as ImageNet's labels or R3M (arXiv 2203.12601) trained it."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wmbench.encoders.base import IMAGENET_MEAN, IMAGENET_STD, PixelStatistics, pixel_statistics
from wmbench.encoders.convolutional import Convolutional
from wmbench.encoders.weights import Release, Weights, load_strictly, read_state

STAGES = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
UNREAD = ("fc.", "lang_enc.", "lang_rew.")  # the classifier, R3M's language model and what compares the two


class ResNet18(Convolutional):
    """One token, the mean of the last map, or the tokens of the third stage's map (14 x 14 at 224 pixels).

    Args:
        output: "pooled" or "layer3".
        pixels: "native" (ImageNet's statistics of RGB in [0, 1]; R3M divides its 0 to 255 itself) or "dino_wm"
            (ImageNet's statistics on top of pixels in [-1, 1], which DINO-WM fed it).
        weights: a file in torchvision's or R3M's format; None for `release`.
        entry, prefix: the file's names: R3M's training checkpoint keeps the network as "convnet." in "r3m".
        pretrained, seed: as in Weights.

    Raises:
        ValueError: an image_size that the strides do not divide, an unknown option, or weights of another network.
    """

    widths, strides = {"pooled": 512, "layer3": 256}, {"pooled": 32, "layer3": 16}

    def __init__(
        self,
        image_size: int,
        output: str,
        pixels: str,
        pretrained: bool,
        weights: str | None,
        entry: str | None,
        prefix: str,
        release: Release,
        seed: int,
    ):
        if output not in self.widths:
            raise ValueError(f"output ({output!r}) must be one of {', '.join(self.widths)}")
        origin = Weights(pretrained, weights, release, seed)
        super().__init__(image_size, output, resnet_pixels(pixels), origin)
        with origin.building():
            network = build_network()
        if pretrained:
            load_network(network, origin.path, entry, prefix)
        stages = STAGES if output == "pooled" else STAGES[:-1]
        self.trunk = nn.Sequential(OrderedDict((stage, getattr(network, stage)) for stage in stages))
        self.freeze()


def resnet_pixels(pixels: str) -> PixelStatistics:
    """Mean and standard deviation of x in [0, 1]: ImageNet's, or for "dino_wm" ImageNet's of (x - 0.5) / 0.5."""
    if pixels != "dino_wm":
        return pixel_statistics(pixels)
    return {"pixel_mean": [(1 + m) / 2 for m in IMAGENET_MEAN], "pixel_std": [s / 2 for s in IMAGENET_STD]}


def build_network() -> Any:
    """The headless network with random weights.

    The last norm of every block starts at 1 as in torchvision: at timm's 0 an untrained network would be its shortcuts.
    """
    import timm  # seconds to import, which other encoders need not wait for

    return timm.create_model("resnet18", num_classes=0, zero_init_last=False)


def load_network(network: nn.Module, path: Path, entry: str | None, prefix: str) -> None:
    """Fill the network, which is on the meta device, with exactly its tensors.

    Older files lack the counters of training batches, which only training uses.
    """
    found = {name.removeprefix("module."): tensor for name, tensor in read_state(path, entry).items()}
    found = {name: tensor for name, tensor in found.items() if not name.startswith(UNREAD)}
    names = {name: prefix + name for name in network.state_dict()}
    counters = {theirs: torch.zeros(()) for theirs in names.values() if theirs.endswith("num_batches_tracked")}
    load_strictly(network, counters | found, f"{path} is no ResNet-18 as this encoder needs it", names)
