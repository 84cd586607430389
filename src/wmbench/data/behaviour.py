"""Policies that data are collected with: how an episode's actions come about. All see the state and none needs a model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path

from wmbench.envs.maze_sets import MazeSet
from wmbench.envs.mazes import BALL_RADIUS, CELL_OFFSET, Maze

BROWNIAN_STEP = 0.3  # standard deviation of what is added to an action from step to step
SPEED = 1.5  # that goal-seeking aims at [m/s]
ARRIVED = 0.3  # from a cell's centre, at which the next one is headed for [m]
WORDS = {
    "uniform": "uniform random actions in [-1, 1] from random states",
    "brownian": "actions that wander: a random walk in [-1, 1] from random states",
    "goal_seeking": "towards one random free cell after another by the shortest way",
}


def behaviour_words(name: Any, noise: Any) -> str:
    """What a manifest says of a policy.

    Raises:
        ValueError: an unknown policy, or a share outside 0 to 1.
    """
    if name not in WORDS:
        raise ValueError(f"behaviour ({name!r}) must be one of: {', '.join(WORDS)}")
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise <= 1:
        raise ValueError(f"behaviour_noise ({noise!r}) must be from 0 (never) to 1 (always uniform actions)")
    return WORDS[name] + (f", {noise:g} of the steps uniform random actions" if name == "goal_seeking" else "")


def actions_of(
    world: Any, start: Float[ndarray, "B S"], rngs: Sequence[np.random.RandomState], length: int, name: str, noise: float
) -> Float[ndarray, "B T 2"]:
    """Actions of episodes from their starts, each drawn by its own generator.

    Args:
        world: PointMazes, whose physics goal-seeking asks where it is.
    """
    if name == "goal_seeking":
        return _seek(world, start, rngs, length, noise)
    action = np.stack([rng.uniform(-1, 1, (length, 2)) for rng in rngs])
    if name == "brownian":
        steps = BROWNIAN_STEP * np.stack([rng.standard_normal((length, 2)) for rng in rngs])
        action = _reflected(action[:, :1] + np.cumsum(steps, axis=1))
    return action.astype(np.float32)


def _reflected(walk: Float[ndarray, "B T 2"]) -> Float[ndarray, "B T 2"]:
    """A walk without limits, thrown back at -1 and 1."""
    return 1 - np.abs((walk + 1) % 4 - 2)


def _seek(
    world: Any, start: Float[ndarray, "B S"], rngs: Sequence[np.random.RandomState], length: int, noise: float
) -> Float[ndarray, "B T 2"]:
    """Head for the next cell of the way to a goal cell, a new one on arrival."""
    ways: list[list[ndarray]] = [[] for _ in rngs]
    state, actions = start, np.empty((len(start), length, 2), np.float32)
    for t in range(length):
        for b, rng in enumerate(rngs):
            if ways[b] and np.linalg.norm(state[b, :2] - ways[b][0]) < ARRIVED:
                ways[b].pop(0)
            if not ways[b]:
                ways[b] = _way(world.maze.at(state[b]), state[b, :2], rng)
            offset = ways[b][0] - state[b, :2]
            wanted = SPEED * offset / max(0.5, float(np.linalg.norm(offset))) - state[b, 2:4]
            random = rng.uniform(-1, 1, 2)
            actions[b, t] = random if rng.uniform() < noise else np.clip(wanted, -1, 1)
        state = world.physics.step(state, actions[:, t])
    return actions


def _way(maze: Maze, position: Float[ndarray, "2"], rng: np.random.RandomState) -> list[ndarray]:
    """Centres [m] of the cells behind the ball's own on a shortest way, over cells' sides, to a random free cell."""
    free = np.argwhere(~maze.walls)
    sides = csr_array(np.abs(free[:, None] - free).sum(-1) == 1)
    here = int(np.abs(free - position - CELL_OFFSET).max(-1).argmin())
    cell = int(rng.randint(len(free)))
    _, before = shortest_path(sides, indices=here, unweighted=True, return_predecessors=True)
    way = []
    while cell >= 0 and cell != here:
        way.insert(0, free[cell] - CELL_OFFSET)
        cell = int(before[cell])
    return way or [free[here] - CELL_OFFSET]


def share_visited(maze: Maze | MazeSet, state: Float[ndarray, "rows S"], square: float = 0.25) -> float:
    """Share of the squares [m] that a ball's centre can be in which the states visit, over all maps."""
    visited, total = 0, 0
    for number, one in enumerate(maze.mazes if isinstance(maze, MazeSet) else [maze]):
        here = state[state[:, 4] == number] if isinstance(maze, MazeSet) else state
        edges = [np.arange(-1, size + square, square) for size in one.walls.shape]
        centres = np.stack(np.meshgrid(*(edge[:-1] + square / 2 for edge in edges), indexing="ij"), -1)
        reachable = one.is_free(centres) & (one.clearance(centres) >= BALL_RADIUS)
        counts, _ = np.histogramdd(here[:, :2], edges)
        visited, total = visited + int((counts[reachable] > 0).sum()), total + int(reachable.sum())
    return visited / total
