"""EfficientNet-Lite0 as ImageNet's labels trained it (arXiv 1905.11946), frozen: its 16-pixel map or one pooled vector."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wmbench.encoders.base import pixel_statistics
from wmbench.encoders.convolutional import Convolutional
from wmbench.encoders.weights import Release, Weights, load_strictly, read_state

MAP_STAGES = 5  # of seven: the last ones at 16 pixels
PIXELS = {"native": "dino_wm", "dino_wm": "dino_wm", "imagenet": "native"}  # what base calls the same statistics
CLASSIFIER = {"_fc.weight": torch.Size([1000, 1280]), "_fc.bias": torch.Size([1000])}

# timm's names of layers and the official file's, outside of blocks, in the first block, which widens nothing, and in others
OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
FIRST = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
OTHERS = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
OTHERS |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}


class EfficientNetLite0(Convolutional):
    """The tokens of the fifth stage's map (14 x 14 at 224 pixels), or one, the mean of the last map.

    Args:
        output: "map" or "pooled".
        pixels: "native" (0.5 and 0.5, which is also what DINO-WM fed every network: "dino_wm") or "imagenet".
        weights: a file in the official format; None for `release`, which an installed package brings.
        pretrained, seed: as in Weights.

    Raises:
        ValueError: an image_size that the stride does not divide, an unknown option, or weights of another network.
    """

    widths, strides = {"map": 112, "pooled": 1280}, {"map": 16, "pooled": 32}

    def __init__(
        self, image_size: int, output: str, pixels: str, pretrained: bool, weights: str | None, release: Release, seed: int
    ):
        for name, value, known in (("output", output, self.widths), ("pixels", pixels, PIXELS)):
            if value not in known:
                raise ValueError(f"{name} ({value!r}) must be one of {', '.join(known)}")
        origin = Weights(pretrained, weights, release, seed)
        super().__init__(image_size, output, pixel_statistics(PIXELS[pixels]), origin)
        with origin.building():
            network = build_network()
        if pretrained:
            load_network(network, origin.path)
        head = (network.conv_head, network.bn2) if output == "pooled" else ()
        blocks = network.blocks if output == "pooled" else network.blocks[:MAP_STAGES]
        self.trunk = nn.Sequential(network.conv_stem, network.bn1, *blocks, *head)
        self.freeze()


def build_network() -> Any:
    """The network without its classifier, with random weights.

    The last norm of every block starts at the root of a half: no ReLU follows, so that at timm's 1 an untrained network
    would double the variance with every block, and rounding with it.
    """
    import timm  # seconds to import, which other encoders need not wait for

    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    for block in chain.from_iterable(network.blocks):  # type: ignore[arg-type]
        norm = block.bn3 if hasattr(block, "bn3") else block.bn2
        nn.init.constant_(norm.weight, 0.5**0.5)
    return network


def load_network(network: nn.Module, path: Path) -> None:
    """Fill the network, which is on the meta device, from the official file; the classifier must be there."""
    names = official_names(network.state_dict())
    load_strictly(network, read_state(path), f"{path} is no EfficientNet-Lite0 by its official names", names, CLASSIFIER)


def official_names(own: Iterable[str]) -> dict[str, str]:
    """The official file's name of each of timm's tensors: blocks are numbered through there, not within their stage."""
    blocks: list[str] = []
    names = {}
    for name in own:
        *block, layer, tensor = name.rsplit(".", 2)
        if not block:
            names[name] = f"{OUTSIDE[layer]}.{tensor}"
            continue
        if block[0] not in blocks:
            blocks.append(block[0])
        number = blocks.index(block[0])
        names[name] = f"_blocks.{number}.{(OTHERS if number else FIRST)[layer]}.{tensor}"
    return names
