"""Sets of maps drawn by a sampler, training and test sets without a common map, as one maze whose states name their map.

A state in a set has five numbers: x, y [m], vx, vy [m/s] and the number of its map. Two kinds of maps, all cells of which
can be reached: `door`, 9 x 9 cells with one wall across and one door in it, and `maze`, 7 x 7 cells with walls anywhere.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.typing import NDArray
from scipy.ndimage import label

from wmbench.envs.mazes import Maze

RANDOM = "random"
MAP = 4  # column of a state that holds its map's number
SPLITS = ("train", "test")
TRIES = 2000  # in vain, after which there are no more maps
MOST = 10_000  # maps of a set, which are drawn wherever it is named
FREE = (10, 18)  # free cells of a `maze`, of 25

Rows = tuple[str, ...]


def draw_door(rng: np.random.Generator) -> Bool[ndarray, "9 9"]:
    """One wall across, which leaves a row on both sides, with a door anywhere in it."""
    walls = np.pad(np.zeros((7, 7), bool), 1, constant_values=True)
    wall, door = rng.integers(2, 7), rng.integers(1, 8)
    walls[wall] = True
    walls[wall, door] = False
    return walls.T if rng.integers(2) else walls


def draw_maze(rng: np.random.Generator) -> Bool[ndarray, "7 7"]:
    """Wall cells anywhere, drawn until all free cells hang together."""
    while True:
        inside = rng.random((5, 5)) < 0.4
        regions: Any = label(~inside)
        if FREE[0] <= (~inside).sum() <= FREE[1] and regions[1] == 1:
            return np.pad(inside, 1, constant_values=True)


KINDS: dict[str, Callable[[np.random.Generator], ndarray]] = {"door": draw_door, "maze": draw_maze}


def split_of(rows: Sequence[str]) -> str:
    """The only split that a map can be drawn for, whatever the seed."""
    return SPLITS[zlib.crc32("".join(rows).encode()) % 2]


class MazeSet:
    """Different maps of one kind and split.

    Args:
        seed: of the draws.

    Raises:
        ValueError: an unknown kind or split, or more maps than there are.
    """

    name = RANDOM

    def __init__(self, kind: str, seed: int, number: int, split: str):
        for key, value, known in (("maze_kind", kind, KINDS), ("maze_split", split, SPLITS)):
            if value not in known:
                raise ValueError(f"env.{key} ({value!r}) must be one of: {', '.join(known)}")
        for key, value, least, most in (("maze_seed", seed, 0, 2**63), ("num_mazes", number, 1, MOST)):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"env.{key} ({value!r}) must be a whole number of at least {least} and at most {most}")
        self.kind, self.seed, self.split = kind, seed, split
        rng, found, in_vain = np.random.default_rng((SPLITS.index(split), seed)), dict[Rows, None](), 0
        while len(found) < number and in_vain < TRIES:
            rows = tuple("".join("#" if wall else "." for wall in line) for line in KINDS[kind](rng))
            in_vain += 1
            if split_of(rows) == split and rows not in found:
                found[rows], in_vain = None, 0
        if len(found) < number:
            raise ValueError(f"there are only {len(found)} {split} maps of kind {kind}; lower env.num_mazes ({number})")
        self.mazes = [Maze(rows) for rows in found]

    def __len__(self) -> int:
        return len(self.mazes)

    @property
    def rows(self) -> Rows:
        """What `maze_of` reads the set from, and what data, runs and results know of it."""
        return RANDOM, self.kind, str(self.seed), str(len(self)), self.split

    @cached_property
    def novelty(self) -> Int[ndarray, " maps"]:
        """Cells in which each map differs from the nearest training map of the same seed and number."""
        seen = MazeSet(self.kind, self.seed, len(self), "train").mazes
        return np.array([min((maze.walls != other.walls).sum() for other in seen) for maze in self.mazes])

    def at(self, state: Float[ndarray, "5"]) -> Maze:
        return self.mazes[int(state[MAP])]

    def sample_state(self, rng: np.random.RandomState, number: int) -> NDArray[np.float64]:
        """Draw a state in a map by DINO-WM's rule."""
        return np.append(self.mazes[number].sample_state(rng), number)

    def geodesic(self, start: Float[ndarray, "B 5"], goal: Float[ndarray, "B 5"]) -> NDArray[np.float64]:
        """Length [m] of the shortest way in the map of both."""
        length = np.full(len(start), np.inf)
        for number, these in groups(start):
            length[these] = self.mazes[number].geodesic(start[these], goal[these])
        return np.where(start[:, MAP] == goal[:, MAP], length, np.inf)

    def has_path(self, start: Float[ndarray, "B 5"], goal: Float[ndarray, "B 5"]) -> NDArray[np.bool_]:
        return np.isfinite(self.geodesic(start, goal))


def groups(state: Float[ndarray, "B 5"]) -> list[tuple[int, Int[ndarray, " n"]]]:
    """The maps that states lie in, each with the places of its states."""
    numbers = state[:, MAP].astype(int)
    return [(int(number), np.flatnonzero(numbers == number)) for number in np.unique(numbers)]


def maze_of(given: Any) -> Maze | MazeSet:
    """A maze by its name or rows, or the set that `MazeSet.rows` names."""
    if isinstance(given, Sequence) and len(given) == 5 and given[0] == RANDOM:
        _, kind, seed, number, split = given
        return MazeSet(str(kind), int(seed), int(number), str(split))
    return Maze(given)


def asked_maze(env: Mapping[str, Any], split: str) -> Any:
    """The maze that conf/env asks for, as `maze_of` reads it; `split` is that of a set whose split is not said."""
    if env["maze"] != RANDOM:
        return env["maze"]
    return MazeSet(env["maze_kind"], env["maze_seed"], env["num_mazes"], env["maze_split"] or split).rows


def played_maze(trained: Sequence[str], env: Mapping[str, Any]) -> Sequence[str]:
    """Where a run acts: in its own maze, or in unseen maps (`env.maze_split`) where it was trained in a set of them."""
    return trained if trained[0] != RANDOM else (*trained[:-1], env["maze_split"] or "test")
