"""A contact sheet: every factor of appearance at every level, one picture each."""

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from wmbench.envs.appearance import FACTORS, LEVELS, Appearance, presets
from wmbench.envs.rendering import pixel_of
from wmbench.envs.vector import PointMazes

COLUMNS = 3  # of rows side by side, so that the sheet is no strip
LABEL = 116  # width of a row's name [pixels]
HEAD = 18  # height of a column's name [pixels]
GAP = 2
CLOSE = ("ball_colour", "ball_size")  # shown from near, as the ball is small
ZOOM = 4


def draw_contact_sheet(maze: str, renderer: str, size: int, seed: int = 0) -> UInt8[ndarray, "h w 3"]:
    """Draw the ball at one place under each factor and each preset, in the training, near and far range.

    Args:
        size: side of a picture [pixels].
    """
    world, near = (PointMazes(maze, renderer, image_size=side, look_seed=seed) for side in (size, ZOOM * size))
    state = world.maze.sample_state(np.random.RandomState(seed + 1))[None]
    names = ["clean", *FACTORS, *(name for name in presets() if name != "clean")]
    per_column = -(-len(names) // COLUMNS)
    width = LABEL + len(LEVELS) * (size + GAP)
    sheet = Image.new("RGB", (COLUMNS * width, HEAD + per_column * (size + GAP)), (24, 24, 28))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for k, name in enumerate(names):
        left, top = k // per_column * width, HEAD + k % per_column * (size + GAP)
        label = f"{name}\n(from near)" if name in CLOSE else name
        draw.text((left + 6, top + size / 2 - 8), label, fill=(235, 235, 235), font=font)
        for place, (level, scale) in enumerate(LEVELS.items()):
            drawn = near if name in CLOSE else world
            drawn.appearance = Appearance.of(name, scale)
            picture = Image.fromarray(drawn.frames(state, episode=_episode_with(drawn.appearance, seed))[0])
            column = left + LABEL + place * (size + GAP)
            sheet.paste(_around(state, picture, drawn, size) if name in CLOSE else picture, (column, top))
            draw.text((column + 2, 2), f"{level} {scale:g}", fill=(235, 235, 235), font=font)
    return np.asarray(sheet)


def _around(state: ndarray, picture: Image.Image, world: PointMazes, size: int) -> Image.Image:
    """The part of a picture that has the ball in its middle."""
    column, row = (pixel_of(state[0, :2], world.physics.model, world.image_size) - size / 2).round().astype(int).tolist()
    return picture.crop((column, row, column + size, row + size))


def _episode_with(appearance: Appearance, seed: int) -> int:
    """The first episode that has every one of the appearance's factors."""
    for episode in range(1, 100):
        value = appearance.values_at(seed, episode, 0)
        if all(value[name] != FACTORS[name].neutral for name in value):
            return episode
    return 0
