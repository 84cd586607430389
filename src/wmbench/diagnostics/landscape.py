"""The cost of being at each place of a maze, for a goal: does it fall towards the goal, and where else does it end?"""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from wmbench.envs.mazes import BALL_RADIUS, CELL_OFFSET, Maze
from wmbench.envs.physics import SUCCESS_RADIUS


def grid_of(maze: Maze, spacing: float) -> tuple[Float[ndarray, "R C 2"], Bool[ndarray, "R C"]]:
    """Positions (x, y) [m] over the whole map, a whole number of them per cell, and whether the ball can be there.

    Raises:
        ValueError: a spacing that is not positive or more than a cell.
    """
    if not 0 < spacing <= 1:
        raise ValueError(f"spacing ({spacing}) must be more than 0 and at most 1 m, the side of a cell")
    per_cell = round(1 / spacing)
    x, y = ((np.arange(count * per_cell) + 0.5) / per_cell - 0.5 - CELL_OFFSET for count in maze.walls.shape)
    positions = np.stack(np.meshgrid(x, y, indexing="ij"), -1)
    return positions, maze.clearance(positions) >= BALL_RADIUS


def local_minima(
    cost: Float[ndarray, "R C"], positions: Float[ndarray, "R C 2"], goal: Float[ndarray, " 2"]
) -> Bool[ndarray, "R C"]:
    """Places that cost less than each of their up to eight neighbours, apart from those within reach of the goal.

    Args:
        cost: inf where the ball cannot be.
    """
    from scipy.ndimage import minimum_filter

    around = np.ones((3, 3), bool)
    around[1, 1] = False
    lowest = minimum_filter(cost, footprint=around, mode="constant", cval=np.inf)
    is_near = np.linalg.norm(positions - goal, axis=-1) < SUCCESS_RADIUS
    return np.isfinite(cost) & (cost < lowest) & ~is_near
