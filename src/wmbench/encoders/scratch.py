"""A small network that pretrain.py trains on our own frames, by one objective or another: the same trunk for all of them."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from einops.layers.torch import Rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import DINO_WM_MEAN, DINO_WM_STD, Encoder, square_grid
from wmbench.encoders.codebook import Codebook
from wmbench.encoders.trained import check_trained, facts_of, save_trained
from wmbench.encoders.weights import drawn_from, file_hash, load_strictly, read_state

OUTPUTS = ("patches", "mean")
CODES = "codebook.embed"
REMEDY = "; give encoder.weights= a file of this encoder, or train it with pretrain.py"


class Scratch(Encoder):
    """Tokens of a small trunk: a map of them or, with output "mean", their mean; of codes, where it was trained with some.

    Args:
        trunk: builds the network for an image size; it has `grid` and `width`.
        image_size: [pixels]
        output: "patches" or "mean".
        embed_dim: features of a token. A linear layer behind the trunk's norm gives them, so nothing fixes their size.
        pretrained: False leaves it untrained.
        weights: the file that pretrain.py wrote.
        seed: of untrained weights, which training begins with, too.
        for_training: one that can be trained, for pretrain.py.

    Raises:
        ValueError: sizes that do not fit, weights of another network or for other settings, or that would go unread.
        FileNotFoundError: no weights; the message names the command that makes them.
    """

    note = "pretrained on PointMaze"
    size_sets_grid = False  # the network is tied to the size it was trained at

    def __init__(
        self,
        trunk: Callable[..., nn.Module],
        image_size: int,
        output: str,
        embed_dim: int,
        pretrained: bool,
        weights: str | None,
        seed: int,
        for_training: bool = False,
    ):
        if output not in OUTPUTS:
            raise ValueError(f"output ({output!r}) must be one of {', '.join(OUTPUTS)}")
        path = weights_file(pretrained, weights, for_training)
        with drawn_from(seed):
            network: Any = trunk(image_size=image_size)
            project = nn.Sequential(nn.LayerNorm(network.width), nn.Linear(network.width, embed_dim))
        objective, source = told(path, for_training, seed)
        super().__init__(
            image_size=image_size,
            grid=network.grid if output == "patches" else (1, 1),
            embed_dim=embed_dim,
            pixel_mean=DINO_WM_MEAN,  # pixels in [-1, 1]
            pixel_std=DINO_WM_STD,
            frozen=not for_training,
            source=source,
        )
        self.map_grid: tuple[int, int] = network.grid
        self.trunk, self.project, self.output = network, project, output
        self.codebook: Codebook | None = None
        if path:
            self.note = f"{type(self).note}: {objective}"
            self.load(path)
        elif not for_training:
            self.note = "untrained"
        if self.frozen:
            self.freeze()

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        tokens = self.continuous(pixels)
        return tokens if self.codebook is None else self.codebook.codes(tokens)

    def continuous(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        """Tokens before they are replaced by codes."""
        tokens = self.map(pixels)
        return tokens if self.output == "patches" else tokens.mean(1, keepdim=True)

    def map(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F M D"]:
        """The trunk's tokens, row-major on `map_grid`."""
        return self.project(self.trunk(pixels))

    def with_codes(self, num_codes: int) -> None:
        """Let tokens be codes from here on."""
        self.codebook = Codebook(self.embed_dim, num_codes)

    def conditions(self) -> dict[str, Any]:
        """What weights are tied to in addition to the shapes of their tensors."""
        return {"trunk": repr(self.trunk), "image_size": self.image_size, "output": self.output}

    def save_head(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Write the network, with what it is tied to and where it comes from; whole or not at all."""
        save_trained(path, self, self.conditions(), provenance)

    def load(self, path: Path) -> None:
        """Fill the network from save_head's file, and from no other."""
        state = read_state(path)
        if CODES in state and state[CODES].ndim == 2:
            self.with_codes(state[CODES].shape[1])
        load_strictly(self, state, f"{path} is not of this encoder", remedy=REMEDY)
        check_trained(path, state, self.conditions(), REMEDY)


class ConvTrunk(nn.Module):
    """A layer of 4 x 4 patches, then convolutions of stride 2, each with a residual block; no statistics of a batch.

    Args:
        widths: channels after the patches and after each convolution of stride 2; three of them make a token of 16 pixels.

    Raises:
        ValueError: an image_size that is no multiple of that.
    """

    def __init__(self, image_size: int, widths: Sequence[int]):
        super().__init__()
        stride = 4 * 2 ** (len(widths) - 1)
        self.grid, self.width = square_grid(image_size, stride, "pixels of a token"), widths[-1]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=4)]
        for narrow, wide in pairwise(widths):
            layers += [nn.GELU(), nn.Conv2d(narrow, wide, 3, stride=2, padding=1), Residual(wide)]
        self.layers = nn.Sequential(*layers, Rearrange("f c h w -> f (h w) c"))

    def forward(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F M c"]:
        return self.layers(pixels.contiguous())  # channels last, one frame and a batch would take different kernels


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, maps: Float[Tensor, "F c h w"]) -> Float[Tensor, "F c h w"]:
        return maps + self.layers(maps)


class ViTTrunk(nn.Module):
    """A Vision Transformer without special tokens, up to its last layer: its norm is the encoder's."""

    def __init__(self, image_size: int, patch: int, width: int, depth: int, num_heads: int):
        super().__init__()
        self.grid, self.width = square_grid(image_size, patch, "patch"), width
        from timm.models.vision_transformer import VisionTransformer  # seconds to import

        self.network = VisionTransformer(
            img_size=image_size,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=num_heads,
            class_token=False,
            global_pool="",
            num_classes=0,
            final_norm=False,
        )

    def forward(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F M c"]:
        return cast(Tensor, self.network.forward_features(pixels))


def weights_file(pretrained: bool, weights: str | None, for_training: bool) -> Path | None:
    """Where the weights are; None for a network that is untrained or to be trained.

    Raises:
        FileNotFoundError: none; the message names the command that makes them.
        ValueError: a file that would go unread.
    """
    if weights and (for_training or not pretrained):
        why = "a new network is trained" if for_training else "pretrained=false"
        raise ValueError(f"{why} leaves weights={weights} unread; drop one of the two")
    if for_training or not pretrained:
        return None
    if not weights or not Path(weights).expanduser().is_file():
        raise FileNotFoundError(
            (f"weights={weights} is no file" if weights else "a network from scratch has no weights until it is trained")
            + ". Train it on your frames:\npython pretrain.py encoder=scratch pretraining=NAME env.data=PATH.h5\n"
            "and say where it is with encoder.weights=PATH.\n"
            "What runs now: encoder.pretrained=false, the same network untrained"
        )
    return Path(weights).expanduser()


def told(path: Path | None, for_training: bool, seed: int) -> tuple[str, str]:
    """The objective that made a file of weights, and their source in words."""
    if path is None:
        return "", "from scratch" if for_training else f"untrained, seed {seed}"
    facts = facts_of(path)["provenance"]
    objective, steps, data = (facts.get(name, "unknown") for name in ("objective", "steps", "data_hash"))
    return str(objective), f"{objective}, {steps} steps on data {data} ({path}, SHA-256 {file_hash(path)[:12]})"
