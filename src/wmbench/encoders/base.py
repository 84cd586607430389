"""The encoder contract: frames in, tokens out, and everything about them that another part may ask."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypedDict

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.weights import contents
from wmbench.shapes import Obs

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO_WM_MEAN, DINO_WM_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class PixelStatistics(TypedDict):
    """Mean and standard deviation of RGB in [0, 1]."""

    pixel_mean: Sequence[float]
    pixel_std: Sequence[float]


class Encoder(nn.Module, ABC):
    """Turns each frame into N = grid[0] * grid[1] tokens of embed_dim features.

    A subclass writes `tokens`. Resizing and pixel statistics belong to the encoder, so that no script, model or YAML
    needs to know a patch size.

    Args:
        image_size: side of the square input of `tokens` [pixels]; other frames are resized to it, antialiased.
        grid: rows and columns of tokens, row-major; (1, 1) for one token per frame.
        embed_dim: features of a token.
        pixel_mean, pixel_std: of RGB in [0, 1].
        frozen: no gradient, evaluation mode also after `train`, weights left out of checkpoints.
        source: where the weights come from, for tables and logs.
        prefix_tokens: special tokens (CLS, registers) before the patches in the trunk's output, as the trunk counts them.
        licence: of the weights; wmbench's own unless others trained them.
    """

    note: str = ""  # what every table says of it after its name
    size_sets_grid: bool = True  # a larger image_size is allowed and gives more tokens
    lookback: int = 0  # frames in front of its own that a frame's tokens depend on, where obs holds them
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        grid: tuple[int, int],
        embed_dim: int,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        frozen: bool = True,
        source: str,
        prefix_tokens: int = 0,
        licence: str = "MIT",
    ):
        super().__init__()
        if min(image_size, embed_dim, *grid) < 1:
            raise ValueError(f"image_size ({image_size}), grid {grid} and embed_dim ({embed_dim}) must be positive")
        self.image_size, self.grid, self.embed_dim = image_size, grid, embed_dim
        self.frozen, self.source = frozen, source
        self.prefix_tokens, self.licence = prefix_tokens, licence
        self.register_buffer("pixel_mean", Tensor(pixel_mean)[:, None, None], persistent=False)
        self.register_buffer("pixel_std", Tensor(pixel_std)[:, None, None], persistent=False)

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @abstractmethod
    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        """Tokens of frames that are resized and normalised already."""

    def forward(self, obs: Obs) -> Float[Tensor, "B T N D"]:
        """Encode each frame (with its `lookback` predecessors): tokens depend neither on other frames nor on the batch.

        Frozen encoders compute in full precision also within autocast, so that training, planning and what is kept on disk
        see the same tokens.
        """
        visual = torch.cat([obs["before"], obs["visual"]], dim=1) if "before" in obs else obs["visual"]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            pixels = rearrange(self.preprocess(visual), "(b t) ... -> b t ...", b=len(visual))
            pixels = pixels[:, visual.shape[1] - obs["visual"].shape[1] :].flatten(0, 1)
            with full_precision(pixels.device) if self.frozen else nullcontext():
                tokens = self.tokens(pixels)
        assert tokens.shape[1:] == (self.num_tokens, self.embed_dim), f"{tuple(tokens.shape[1:])} tokens, grid {self.grid}"
        return rearrange(tokens, "(b t) n d -> b t n d", b=len(visual))

    def match(self, tokens: Float[Tensor, "*B M E"]) -> Float[Tensor, "*B N D"]:
        """The network's own tokens, which are what is kept on disk, as the model sees them; Matched changes them."""
        return tokens

    def preprocess(self, visual: Tensor) -> Float[Tensor, "F 3 h w"]:
        """Frames (B T h w 3) uint8 as `tokens` wants them."""
        pixels = rearrange(visual, "b t h w c -> (b t) c h w").to(self.pixel_mean.dtype) / 255
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            pixels = nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        return (pixels - self.pixel_mean) / self.pixel_std

    def freeze(self) -> None:
        """Called at the end of a frozen encoder's constructor, when its weights are in place."""
        self.requires_grad_(False)
        self.eval()

    def unfreeze(self) -> None:
        """Train with the model from here on, with all that was frozen inside; checkpoints then hold the weights.

        Raises:
            ValueError: an encoder that has no weights, or that is trained anyway.
        """
        name = type(self).__name__
        if not self.frozen:
            raise ValueError(f"train_encoder=true is for frozen encoders, and {name} is trained anyway; leave it out")
        if not list(self.parameters()):
            raise ValueError(f"train_encoder=true needs an encoder with weights, and {name} has none; leave it out")
        for module in self.modules():
            if isinstance(module, Encoder):
                module.frozen = False
        self.requires_grad_(True)
        self.source += ", trained with the model"

    def train(self, mode: bool = True) -> "Encoder":
        return super().train(mode and not self.frozen)


def pixel_statistics(pixels: str) -> PixelStatistics:
    """The statistics of a network trained on ImageNet's ("native") or those that DINO-WM fed every network ("dino_wm")."""
    known = {"native": (IMAGENET_MEAN, IMAGENET_STD), "dino_wm": (DINO_WM_MEAN, DINO_WM_STD)}
    if pixels not in known:
        raise ValueError(f"pixels ({pixels!r}) must be one of {', '.join(known)}")
    mean, std = known[pixels]
    return {"pixel_mean": mean, "pixel_std": std}


def square_grid(image_size: int, stride: int, name: str) -> tuple[int, int]:
    """Rows and columns of tokens, one for every `stride` pixels; `name` is what the stride is called in the error."""
    if image_size < 1 or image_size % stride:
        near = max(1, round(image_size / stride)) * stride
        raise ValueError(f"image_size ({image_size}) must be a multiple of the {name} ({stride}), such as {near}")
    return image_size // stride, image_size // stride


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """No autocast inside. The meta device, which only counts, has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def weights_hash(module: nn.Module) -> str:
    """Sixteen hex digits that name the module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(contents(tensor))
    return digest.hexdigest()[:16]
