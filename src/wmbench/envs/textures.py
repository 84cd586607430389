"""Patterns for floor, walls and surroundings, made here: each is known by its level (training, near, far) and number.

Training and near patterns are of the same families; those of the far level are of families that training never shows.
"""

import colorsys
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from scipy.ndimage import zoom

NUMBER = (20, 10, 10)  # patterns of each level
SIZE = 256  # side of a pattern [pixels]

Pattern = Float[ndarray, "h w"]  # from 0 to 1
Picture = UInt8[ndarray, "h w 3"]


def pattern(level: int, number: int) -> Pattern:
    """Draw one of the NUMBER[level] patterns of a level."""
    families = FAR_FAMILIES if level == 2 else FAMILIES
    return families[number % len(families)](np.random.default_rng((level, number)))


def coloured(level: int, number: int) -> Picture:
    """A pattern between two colours, which leave a ball in sight."""
    dark, light = _colours(level, number)
    return _picture(dark + pattern(level, number)[..., None] * (light - dark))


def grey(level: int, number: int) -> Picture:
    """A pattern that dims what it is multiplied with, to 0.4 at least."""
    return _picture(np.repeat(0.4 + 0.6 * pattern(level, number)[..., None], 3, axis=-1))


def surrounding(level: int, number: int) -> Picture:
    """One colour, in the far range a pattern."""
    return coloured(level, number) if level == 2 else _picture(np.broadcast_to(_colours(level, number)[1], (SIZE, SIZE, 3)))


def mixed(usual: Picture, other: Picture, share: float) -> Picture:
    """The usual picture with a share of another one."""
    return np.round((1 - share) * usual.astype(float) + share * other).astype(np.uint8)


def _colours(level: int, number: int) -> tuple[Float[ndarray, "3"], Float[ndarray, "3"]]:
    rng = np.random.default_rng((level, number, 1))
    dark, light = (np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.8), value)) for value in (0.15, 0.5))
    return dark, light


def _picture(rgb: Float[ndarray, "h w 3"]) -> Picture:
    return np.round(255 * rgb).astype(np.uint8)


def _grid(rng: np.random.Generator) -> tuple[ndarray, ndarray]:
    """Coordinates (h w) from 0 to 1 along a random direction, and across it."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    angle = rng.uniform(0, np.pi)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def checker(rng: np.random.Generator) -> Pattern:
    along, across = _grid(rng)
    cells = rng.uniform(4, 12)
    return ((np.floor(along * cells) + np.floor(across * cells)) % 2).astype(float)


def noise(rng: np.random.Generator) -> Pattern:
    coarse = int(2 ** rng.integers(3, 6))
    values = np.asarray(zoom(rng.random((coarse, coarse)), SIZE / coarse, order=1))
    return (values - values.min()) / (values.max() - values.min())


def gradient(rng: np.random.Generator) -> Pattern:
    along, _ = _grid(rng)
    return (along - along.min()) / (along.max() - along.min())


def stripes(rng: np.random.Generator) -> Pattern:
    along, _ = _grid(rng)
    return 0.5 + 0.5 * np.sin(2 * np.pi * along * rng.uniform(4, 14))


def rings(rng: np.random.Generator) -> Pattern:
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE - rng.uniform(0, 1, (2, 1, 1))
    return 0.5 + 0.5 * np.sin(2 * np.pi * np.hypot(x, y) * rng.uniform(8, 20))


def bricks(rng: np.random.Generator) -> Pattern:
    along, across = _grid(rng)
    rows = rng.uniform(6, 14)
    row = np.floor(across * rows)
    joint = np.minimum((across * rows) % 1, 2 * ((along * rows / 2 + 0.5 * (row % 2)) % 1))
    return (joint > 0.15).astype(float)


def dots(rng: np.random.Generator) -> Pattern:
    along, across = _grid(rng)
    cells = rng.uniform(5, 12)
    return (np.hypot((along * cells) % 1 - 0.5, (across * cells) % 1 - 0.5) < 0.3).astype(float)


def cells(rng: np.random.Generator) -> Pattern:
    """Voronoi's cells, each of one grey."""
    points, greys = rng.uniform(0, SIZE, (40, 2)), rng.random(40)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    nearest = np.argmin((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2, axis=-1)
    return greys[nearest]


FAMILIES: tuple[Callable[[np.random.Generator], Pattern], ...] = (checker, noise, gradient, stripes)
FAR_FAMILIES: tuple[Callable[[np.random.Generator], Pattern], ...] = (rings, bricks, dots, cells)
