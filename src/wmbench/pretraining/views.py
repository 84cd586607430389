"""Other views of a frame that show the same maze and ball: parts of it, in slightly other colours.

Nothing is mirrored or turned: a mirrored maze is another maze, and the ball then stands elsewhere in it.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmbench.processes.batch import with_noise

BRIGHTNESS, CONTRAST, COLOUR = 0.2, 0.2, 0.1  # most that pixels in [-1, 1] move by, or are scaled by


def view(pixels: Float[Tensor, "F 3 h w"], least: int | float, most: int | float) -> Float[Tensor, "F 3 h w"]:
    """A random part of each frame, least to most of its area, in slightly other colours."""
    return jitter(crop(pixels, least, most))


def multi_crop(
    pixels: Float[Tensor, "F 3 h w"], large: Sequence[int | float], small: Sequence[int | float], num_small: int
) -> list[Float[Tensor, "F 3 h w"]]:
    """Two large views of each frame, then num_small small ones; `large` and `small` are least and most of its area."""
    return [view(pixels, *large) for _ in range(2)] + [view(pixels, *small) for _ in range(num_small)]


def crop(pixels: Float[Tensor, "F 3 h w"], least: int | float, most: int | float) -> Float[Tensor, "F 3 h w"]:
    """A random square of each frame that has a share from least to most of its area, drawn at the frame's own size."""
    count, device = len(pixels), pixels.device
    side = (least + (most - least) * uniform(count, device=device)).sqrt()
    centre = (2 * uniform(count, 2, device=device) - 1) * (1 - side)[:, None]
    theta = torch.cat([torch.diag_embed(side[:, None].expand(-1, 2)), centre[..., None]], dim=2)
    places = nn.functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    return nn.functional.grid_sample(pixels, places, padding_mode="border", align_corners=False)


def jitter(pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F 3 h w"]:
    """Other brightness, contrast and balance of colours, within [-1, 1]."""

    def around(middle: float, most: float, channels: int = 1) -> Tensor:
        return middle + most * (2 * uniform(len(pixels), channels, 1, 1, device=pixels.device) - 1)

    mean = pixels.mean((1, 2, 3), keepdim=True)
    contrasted = (pixels - mean) * around(1.0, CONTRAST) + mean + around(0.0, BRIGHTNESS)
    return ((contrasted + 1) * around(1.0, COLOUR, channels=3) - 1).clamp(-1, 1)


def uniform(count: int, *shape: int, device: torch.device) -> Float[Tensor, "F ..."]:
    """Numbers from 0 to 1 for each of `count` frames of a batch, which several processes may share."""
    return with_noise(lambda frames: torch.rand(len(frames), *shape, device=device), torch.empty(count, device=device))


def num_hidden(count: int, share: int | float) -> int:
    """Cells that a share of them is.

    Raises:
        ValueError: none of them, or all.
    """
    hidden = round(share * count)
    if not 0 < hidden < count:
        raise ValueError(f"hidden ({share}) must leave some of the {count} cells seen and hide some, such as 0.5")
    return hidden


def hidden_cells(count: int, side: int, num_hidden: int, device: torch.device) -> Bool[Tensor, "F side side"]:
    """Which cells of a square grid are hidden: exactly num_hidden of each frame's, at random."""
    order = uniform(count, side**2, device=device).argsort(1)
    return rearrange(order < num_hidden, "f (r c) -> f r c", r=side)


def cover(pixels: Float[Tensor, "F 3 h w"], hidden: Bool[Tensor, "F side side"]) -> Float[Tensor, "F 3 h w"]:
    """Frames with their hidden cells grey."""
    return torch.where(as_pixels(hidden, pixels.shape[-1])[:, None], 0.0, pixels)


def as_pixels(hidden: Bool[Tensor, "F side side"], size: int) -> Bool[Tensor, "F h w"]:
    scale = size // hidden.shape[-1]
    return hidden.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
