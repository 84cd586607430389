"""ResNet-18, frozen: one pooled vector or the 16-pixel map, as ImageNet's labels or R3M (arXiv 2203.12601) trained it."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import IMAGENET_MEAN, IMAGENET_STD, Encoder, square_grid
from wmbench.encoders.weights import REMEDY, Release, check_state, initial_weights, provenance, read_state, weights_file

STAGES = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
WIDTH = {"pooled": 512, "layer3": 256}
STRIDE = {"pooled": 32, "layer3": 16}
PIXELS = ("native", "dino_wm")
UNREAD = ("fc.", "lang_enc.", "lang_rew.")  # the classifier, R3M's language model and what compares the two


class ResNet18(Encoder):
    """One token, the mean of the last map, or the tokens of the third stage's map (14 x 14 at 224 pixels).

    Args:
        output: "pooled" or "layer3".
        pixels: "native" (ImageNet's statistics of RGB in [0, 1]; R3M divides its 0 to 255 itself) or "dino_wm"
            (ImageNet's statistics on top of pixels in [-1, 1], which DINO-WM fed it).
        pretrained: False leaves the network untrained, a control.
        weights: a file in torchvision's or R3M's format; None for `release`.
        entry, prefix: the file's names: R3M's training checkpoint keeps the network as "convnet." in "r3m".
        seed: of untrained weights.

    Raises:
        ValueError: an image_size that the strides do not divide, an unknown option, or weights of another network.
        FileNotFoundError: no weights and no network; the message says what to do.
    """

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
        if output not in WIDTH:
            raise ValueError(f"output ({output!r}) must be one of {', '.join(WIDTH)}")
        grid = square_grid(image_size, STRIDE[output], f"stride of {output}")  # 196 would give 13 x 13 uneven cells
        mean, std = resnet_pixels(pixels)
        with initial_weights(pretrained, seed):
            network = build_network()
        file = weights_file(pretrained, weights, release)
        source, licence = provenance(pretrained, weights, release, seed)
        super().__init__(
            image_size=image_size,
            grid=grid if output == "layer3" else (1, 1),
            embed_dim=WIDTH[output],
            pixel_mean=mean,
            pixel_std=std,
            frozen=True,
            source=source,
            licence=licence,
        )
        if file:
            load_network(network, file, entry, prefix)
        stages = STAGES if output == "pooled" else STAGES[:-1]
        self.trunk = nn.Sequential(OrderedDict((stage, getattr(network, stage)) for stage in stages))
        self.freeze()

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        features = self.trunk(pixels.contiguous())  # channels last, one frame and a batch would take different kernels
        if self.num_tokens == 1:
            return reduce(features, "f d h w -> f 1 d", "mean")
        return rearrange(features, "f d h w -> f (h w) d")


def resnet_pixels(pixels: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of x in [0, 1]: ImageNet's, or for "dino_wm" ImageNet's of (x - 0.5) / 0.5."""
    if pixels not in PIXELS:
        raise ValueError(f"pixels ({pixels!r}) must be one of {', '.join(PIXELS)}")
    if pixels == "native":
        return IMAGENET_MEAN, IMAGENET_STD
    return [(1 + mean) / 2 for mean in IMAGENET_MEAN], [std / 2 for std in IMAGENET_STD]


def build_network() -> Any:
    """The headless network with random weights.

    The last norm of every block starts at 1 as in torchvision: at timm's 0 an untrained network would be its shortcuts.
    """
    import timm  # seconds to import, which other encoders need not wait for

    return timm.create_model("resnet18", num_classes=0, zero_init_last=False)


def load_network(network: nn.Module, path: Path, entry: str | None, prefix: str) -> None:
    """Fill the network, which stands on the meta device, with exactly its tensors.

    Older files lack the counters of training batches, which serve training alone.
    """
    found = {name.removeprefix("module."): tensor for name, tensor in read_state(path, entry).items()}
    found = {name: tensor for name, tensor in found.items() if not name.startswith(UNREAD)}
    shapes = {prefix + name: tensor.shape for name, tensor in network.state_dict().items()}
    counters = {name: torch.zeros((), dtype=torch.long) for name in shapes if name.endswith("num_batches_tracked")}
    check_state(f"{path} is no ResNet-18 as this encoder needs it", counters | found, shapes, REMEDY)
    network.load_state_dict({n.removeprefix(prefix): t for n, t in (counters | found).items()}, assign=True)
