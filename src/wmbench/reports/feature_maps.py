"""What an encoder tells apart, as colours: the first three principal components of its tokens."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from wmbench.data.episodes import EpisodeSet
from wmbench.data.windows import FrameNumbers
from wmbench.encoders.base import Encoder
from wmbench.shapes import Obs

SIZE = 160  # pixels of a frame in the sheet
CAPTION, GAP = 20, 4
RANGE = (0.01, 0.99)  # of a component over all tokens, from black to full: a few outliers must not darken the rest


@dataclass(frozen=True)
class FeatureMap:
    """A picture for each frame, and the shares of the tokens' variance that red, green and blue show."""

    colours: UInt8[ndarray, "F h w 3"]
    explained: Float[ndarray, "3"]


def spread_frames(episodes: EpisodeSet, count: int) -> UInt8[ndarray, "F h w 3"]:
    """Frames evenly spread over a collection, the first and the last among them."""
    if count < 1:
        raise ValueError(f"the number of frames ({count}) must be positive")
    numbers = FrameNumbers(episodes)
    index = np.unique(np.linspace(0, len(numbers) - 1, count).astype(int))
    return np.asarray(episodes.frames(*numbers.place(index)))


@torch.inference_mode()
def encode_frames(encoder: Encoder, frames: UInt8[ndarray, "F h w 3"]) -> Float[Tensor, "F N D"]:
    """Encode each frame by itself, on the encoder's device; proprio, which no encoder with a grid reads, is zero."""
    device = encoder.pixel_mean.device
    visual = torch.from_numpy(frames)[:, None].to(device)
    return encoder(Obs(visual=visual, proprio=torch.zeros(len(frames), 1, 4, device=device)))[:, 0]


def feature_map(tokens: Float[Tensor, "F N D"], grid: tuple[int, int]) -> FeatureMap:
    """Colours of an encoder's tokens, row-major on its grid.

    The components are those of all frames together, so a colour means the same in each. Of a component's two signs the
    one is taken whose largest weight is positive.

    Raises:
        ValueError: tokens that are no map, or too few tokens or features for three components.
    """
    if tokens.shape[1] == 1:
        raise ValueError("one token a frame is no map; only encoders with a grid of tokens have one")
    if min(tokens.shape[0] * tokens.shape[1], tokens.shape[2]) < 3:
        raise ValueError(
            f"three components need 3 tokens of 3 features, not {tuple(tokens.shape)} (frames, tokens, features)"
        )
    features = rearrange(tokens.detach().cpu().double(), "f n d -> (f n) d")
    centred = features - features.mean(0)
    _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
    largest = axes[:3].gather(1, axes[:3].abs().argmax(1, keepdim=True))
    scores = centred @ (axes[:3] * largest.sign()).T
    low, high = torch.quantile(scores, torch.tensor(RANGE, dtype=scores.dtype), dim=0)
    rounding = 1e-5 * features.abs().max() + 1e-30  # a constant component is black, not noise
    shades = ((scores - low) / (high - low).clamp_min(rounding)).clamp(0, 1)
    colours = rearrange((255 * shades).round().byte(), "(f h w) rgb -> f h w rgb", h=grid[0], w=grid[1])
    variance = singular.square()
    return FeatureMap(colours.numpy(), (variance[:3] / variance.sum().clamp_min(rounding**2)).numpy())


def feature_sheet(frames: UInt8[ndarray, "F h w 3"], maps: Mapping[str, FeatureMap]) -> UInt8[ndarray, "H W 3"]:
    """Frames side by side, and below them a row of maps for each name, with the variance that its colours explain."""
    rows = {"frames": frames} | {_legend(name, shown): shown.colours for name, shown in maps.items()}
    canvas = Image.new("RGB", ((SIZE + GAP) * len(frames) - GAP, (SIZE + CAPTION) * len(rows)), (24, 24, 28))
    draw = ImageDraw.Draw(canvas)
    for row, (legend, pictures) in enumerate(rows.items()):
        top = row * (SIZE + CAPTION)
        draw.text((6, top + 2), legend, fill=(235, 235, 235), font=ImageFont.load_default(13))
        for column, picture in enumerate(pictures):
            resized = Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.NEAREST)
            canvas.paste(resized, (column * (SIZE + GAP), top + CAPTION))
    return np.asarray(canvas)


def _legend(name: str, shown: FeatureMap) -> str:
    """`dinov2, 14 x 14 tokens: red 41%, green 17%, blue 9% of their variance, together 67%`."""
    shares = ", ".join(
        f"{colour} {share:.0%}" for colour, share in zip(("red", "green", "blue"), shown.explained, strict=True)
    )
    rows, columns = shown.colours.shape[1:3]
    return f"{name}, {rows} x {columns} tokens: {shares} of their variance, together {shown.explained.sum():.0%}"
