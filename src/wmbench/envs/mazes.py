"""Mazes: maps, the ball's free space, start states and shortest paths.

Coordinates are DINO-WM's: the ball's qpos (x, y) [m]. Row w of a map spans x, column h spans y, and the centre of
cell (w, h) is at qpos (w - 0.2, h - 0.2), because the ball's body is at (1.2, 1.2) and cell centres at (w + 1, h + 1).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

CELL_OFFSET = 0.2  # qpos of a cell centre is its index minus this [m]
BALL_RADIUS = 0.1  # of the colliding sphere [m]; the drawn ball is twice as large
START_CLEARANCE = 0.1  # between a sampled ball's surface and the walls [m]
MAX_START_SPEED = 5.2262554  # per axis [m/s]; DINO-WM's STATE_RANGES

MAPS: dict[str, tuple[str, ...]] = {
    "umaze": ("#####", "#...#", "###.#", "#...#", "#####"),
    "medium": ("########", "#..##..#", "#..#...#", "##...###", "#..#...#", "#.#..#.#", "#...#..#", "########"),
    "large": (
        "############",
        "#....#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#...#",
        "############",
    ),
    "open": ("#######", "#.....#", "#.....#", "#.....#", "#######"),
}


class Maze:
    """A map of cells 1 m wide, '#' for wall and '.' for free, with the geometry that the ball's centre can reach.

    Args:
        rows: a name in MAPS, or the rows of a map; walls may be 1 and free cells 0, as in gymnasium-robotics.

    Raises:
        ValueError: an unknown name, ragged rows, other characters, no free cell, or an open border.
    """

    def __init__(self, rows: Any):
        if isinstance(rows, str):
            if rows not in MAPS:
                raise ValueError(f"unknown maze {rows!r}; known: {', '.join(MAPS)}, or give the rows of a map")
            rows = MAPS[rows]
        self.rows = _rows_of_characters(rows)
        self.name = next((name for name, known in MAPS.items() if known == self.rows), "custom")
        if len({len(row) for row in self.rows}) != 1 or not self.rows[0]:
            raise ValueError(f"every row of a maze must have the same length: {list(self.rows)}")
        if strange := set("".join(self.rows)) - set("#."):
            raise ValueError(
                f"a maze is made of '#' (wall) and '.' (free), not {sorted(strange)}; also of 1 and 0, without letters for "
                f"starts and goals"
            )
        self.walls = np.array([[char == "#" for char in row] for row in self.rows])
        border = np.concatenate([self.walls[0], self.walls[-1], self.walls[:, 0], self.walls[:, -1]])
        if not border.all():
            raise ValueError(f"the border of a maze must be wall: {list(self.rows)}")
        if self.walls.all():
            raise ValueError(f"a maze needs a free cell: {list(self.rows)}")

    def is_free(self, position: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether points (..., 2) are in a free cell of the map."""
        cell = np.floor(position + CELL_OFFSET + 0.5)
        inside = np.asarray(((cell >= 0) & (cell < self.walls.shape)).all(-1))
        w, h = np.moveaxis(np.where(inside[..., None], cell, 0).astype(int), -1, 0)
        return np.asarray(inside & ~self.walls[w, h])

    def clearance(self, position: NDArray[np.floating]) -> NDArray[np.floating]:
        """Largest-coordinate distance [m] from points (..., 2) to the nearest wall cell; negative inside one."""
        centres = np.argwhere(self.walls) - CELL_OFFSET
        return np.asarray((np.abs(position[..., None, :] - centres).max(-1) - 0.5).min(-1))

    def at(self, state: NDArray[np.floating]) -> "Maze":
        """The map that a state lies in: of one maze always this one."""
        return self

    def sample_state(self, rng: np.random.RandomState, number: int = 0) -> NDArray[np.float64]:
        """Draw one (x, y, vx, vy) by DINO-WM's rule: rejection in the bounding box, then a uniform velocity.

        Its order of draws is kept, so that RandomState(seed) gives the original's start and goal for the U-maze.
        """
        margin = BALL_RADIUS + START_CLEARANCE
        low = round(0.5 - CELL_OFFSET + margin, 6)  # exactly 0.5 and 3.1 in the U-maze
        high = np.round(np.array(self.walls.shape) - 1.5 - CELL_OFFSET - margin, 6)
        while True:
            position = np.array([rng.uniform(low, high[0]), rng.uniform(low, high[1])])
            if self.clearance(position) >= margin - 1e-9:
                break
        return np.concatenate([position, rng.uniform(-MAX_START_SPEED, MAX_START_SPEED, size=2)])

    def geodesic(self, start: NDArray[np.floating], goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """Length [m] of the shortest collision-free path of the ball's centre between points or states; inf without one.

        Exact in a maze whose walls are grown by the ball's radius with square corners (a real ball can cut a corner by at
        most 0.04 m): the path bends only at convex corners, so it is found in their visibility graph.
        """
        corners, between = self._corner_graph
        start, goal = self._out_of_walls(start[:, :2]), self._out_of_walls(goal[:, :2])
        direct = np.where(self._visible(start, goal), np.linalg.norm(goal - start, axis=-1), np.inf)
        if not len(corners):
            return direct
        to_corner = _masked_distance(self, start, corners)  # B K
        from_corner = _masked_distance(self, goal, corners)  # B K
        around = (to_corner[:, :, None] + between + from_corner[:, None, :]).min((1, 2))
        return np.minimum(direct, around)

    def has_path(self, start: NDArray[np.floating], goal: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether the ball can roll from one position or state to the other."""
        return np.isfinite(self.geodesic(start, goal))

    @cached_property
    def _corner_graph(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Convex wall corners, grown by the ball's radius (K, 2), and the path lengths between them (K, K)."""
        corners = []
        for w in range(1, self.walls.shape[0]):
            for h in range(1, self.walls.shape[1]):
                block = self.walls[w - 1 : w + 1, h - 1 : h + 1]
                for dw, dh in np.argwhere(block):
                    if not block[1 - dw, dh] and not block[dw, 1 - dh]:  # walls do not run on: a convex corner
                        outward = np.array([1 - 2 * dw, 1 - 2 * dh])
                        corners.append(np.array([w, h]) - 0.5 - CELL_OFFSET + outward * BALL_RADIUS)
        corners = np.array([c for c in corners if self.clearance(c) >= BALL_RADIUS - 1e-9]).reshape(-1, 2)
        between = _masked_distance(self, corners, corners)
        for via in range(len(corners)):  # Floyd-Warshall
            between = np.minimum(between, between[:, via, None] + between[None, via, :])
        return corners, between

    def _out_of_walls(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Positions (B, 2) of balls pressed into walls (contacts are soft) moved out, by the shortest way along an axis."""
        position = np.array(points, np.float64)
        centres = np.argwhere(self.walls) - CELL_OFFSET
        clearance = self.clearance(position)
        pressed = np.flatnonzero((clearance < BALL_RADIUS) & (clearance >= 0))
        each = np.arange(len(pressed))
        for _ in range(4):  # out of one wall may be into the next
            offset = position[pressed, None] - centres
            depth = 0.5 + BALL_RADIUS - np.abs(offset)  # B K 2
            wall = depth.min(-1).argmax(-1)
            axis = depth[each, wall].argmin(-1)
            push = np.maximum(depth[each, wall, axis], 0)
            position[pressed, axis] += np.sign(offset[each, wall, axis]) * push
        return position

    def _visible(self, start: NDArray[np.floating], goal: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether the segments (..., 2) stay outside the walls grown by the ball's radius (touching is allowed)."""
        centres = np.argwhere(self.walls) - CELL_OFFSET
        half = 0.5 + BALL_RADIUS - 1e-6
        start, goal = np.broadcast_arrays(start, goal)
        delta = goal - start
        with np.errstate(divide="ignore", invalid="ignore"):
            near = (centres - half - start[..., None, :]) / delta[..., None, :]
            far = (centres + half - start[..., None, :]) / delta[..., None, :]
        enter, leave = np.fmin(near, far), np.fmax(near, far)  # fraction of the segment where each axis overlaps
        inside = np.abs(start[..., None, :] - centres) < half
        parallel = (np.abs(delta) < 1e-12)[..., None, :]
        enter = np.where(parallel, np.where(inside, -np.inf, np.inf), enter).max(-1)
        leave = np.where(parallel, np.where(inside, np.inf, -np.inf), leave).min(-1)
        return ~((np.maximum(enter, 0) < np.minimum(leave, 1)).any(-1))


def _rows_of_characters(rows: Any) -> tuple[str, ...]:
    """A map's rows, given as strings or as sequences of cells, with gymnasium-robotics' 1 and 0 as '#' and '.'."""
    if not _is_list(rows) or not all(_is_list(row) for row in rows):
        raise ValueError(
            f"a maze is a name ({', '.join(MAPS)}) or the rows of a map, such as {list(MAPS['open'])}, not {rows!r}"
        )
    written = {"1": "#", "0": ".", "1.0": "#", "0.0": ".", "True": "#", "False": "."}
    return tuple("".join(written.get(str(cell), str(cell)) for cell in row) for row in rows)


def _is_list(rows: Any) -> bool:
    return isinstance(rows, Sequence) or (isinstance(rows, np.ndarray) and rows.ndim > 0)


def _masked_distance(maze: Maze, start: NDArray, goal: NDArray) -> NDArray[np.float64]:
    """Straight distances (B, K) between points (B, 2) and (K, 2), inf where a wall is in the way."""
    visible = maze._visible(start[:, None], goal[None])
    return np.where(visible, np.linalg.norm(start[:, None] - goal[None], axis=-1), np.inf)
