"""What a camera's sensor does to a frame: a patch on the lens, blur, noise and JPEG, in this order."""

import io
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image, ImageFilter

from wmbench.envs.appearance import draws_of

Frame = UInt8[ndarray, "h w 3"]
BLUR_SIZE = 224  # side of the frame that a blur's width is told for [pixels]
ROWS = 24  # of a frame that noise is added to at once
NOISE = np.random.default_rng(0).standard_normal(2**20, np.float32)  # a frame's noise begins anywhere in it


def spoil(
    frame: UInt8[ndarray, "h w 3"], value: Mapping[str, float], seed: int, episode: int, step: int
) -> UInt8[ndarray, "h w 3"]:
    """The frame as a sensor gives it; noise differs from step to step, the patch stays where the episode has it."""
    if share := value.get("patch"):
        frame = _hide(frame, share, draws_of(seed, episode, "patch", "details"))
    if width := value.get("blur"):
        frame = np.asarray(Image.fromarray(frame).filter(ImageFilter.BoxBlur(box_radius(width * len(frame) / BLUR_SIZE))))
    if sd := value.get("noise"):
        first = draws_of(seed, episode, "noise", str(step)).integers(
            NOISE.size - frame.size if frame.size < NOISE.size else 1
        )
        frame = _add_noise(frame, np.resize(NOISE[first : first + frame.size], frame.shape), np.float32(255 * sd))
    if loss := value.get("jpeg"):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "jpeg", quality=100 - int(loss))
        frame = np.asarray(Image.open(file))
    return frame


def _add_noise(frame: Frame, noise: Float[ndarray, "h w 3"], scale: np.float32) -> Frame:
    """Add noise in bands of rows that stay in the processor's cache, which is five times as fast."""
    noisy = np.empty_like(frame)
    for k in range(0, len(frame), ROWS):
        band = noise[k : k + ROWS] * scale
        band += frame[k : k + ROWS]
        band += np.float32(0.5)
        noisy[k : k + ROWS] = band.clip(0, 255, out=band)
    return noisy


def box_radius(sd: float) -> float:
    """Radius of a box blur with this standard deviation [pixels]: a uniform width w has a variance of (w^2 - 1) / 12."""
    return (math.sqrt(12 * sd**2 + 1) - 1) / 2


def _hide(frame: Frame, share: float, rng: np.random.Generator) -> Frame:
    """Hide this share of the frame behind a grey rectangle."""
    size, stretch, grey = len(frame), rng.uniform(0.7, 1.4), rng.integers(40, 200)
    height, width = (max(1, round(size * np.sqrt(share) * factor)) for factor in (stretch, 1 / stretch))
    row, column = (int(rng.integers(0, max(1, size - side + 1))) for side in (height, width))
    hidden = frame.copy()
    hidden[row : row + height, column : column + width] = grey
    return hidden
