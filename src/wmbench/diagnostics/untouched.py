"""The share of a latent distance that comes from tokens on which the ball is in neither frame."""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from wmbench.envs.mazes import BALL_RADIUS
from wmbench.envs.physics import Physics
from wmbench.envs.rendering import pixel_of


def touched(physics: Physics, grid: tuple[int, int], position: Float[ndarray, "P 2"]) -> Bool[ndarray, "P N"]:
    """Tokens of a row-major grid over the frame on whose squares the drawn ball is, at each position (x, y) [m]."""
    centre = pixel_of(position, physics.model, 1) + 0.5  # in frame sides, from the frame's corner
    metre = np.diff(pixel_of(np.array([[0.0, 0.0], [1.0, 0.0]]), physics.model, 1)[:, 0])
    rows, columns = grid
    away_y, away_x = (
        np.maximum(np.abs(centre[:, axis, None] - (np.arange(count) + 0.5) / count) - 0.5 / count, 0)
        for axis, count in ((1, rows), (0, columns))
    )
    away = np.hypot(away_y[:, :, None], away_x[:, None, :])  # from the ball's centre to each square
    return (away < 2 * BALL_RADIUS * metre).reshape(len(position), -1)  # the drawn ball is twice as large


def untouched_share(
    visual: Float[Tensor, "P N E"], goal: Float[Tensor, "N E"], on_ball: Bool[ndarray, "P N"], on_goal: Bool[ndarray, " N"]
) -> float:
    """Share of the summed squared distances of P frames to a goal that comes from tokens without the ball in both."""
    by_token = (visual - goal).square().sum(-1).double().numpy()
    total = by_token.sum()
    return float(by_token[~(on_ball | on_goal)].sum() / total) if total else 0.0
