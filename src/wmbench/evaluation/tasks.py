"""Tasks: starts and goals, sampled once, saved, and the same for every row of a table."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from wmbench.envs.mazes import Maze
from wmbench.envs.physics import is_success


@dataclass(frozen=True)
class Tasks:
    """n starts and goals (x, y [m], vx, vy [m/s]), and the seeds that drew them."""

    start: Float[ndarray, "n 4"]
    goal: Float[ndarray, "n 4"]
    seeds: Int[ndarray, " n"]

    def __len__(self) -> int:
        return len(self.start)

    @property
    def hash(self) -> str:
        """Twelve hex digits that name the starts and goals."""
        return hashlib.sha256(self.start.tobytes() + self.goal.tobytes()).hexdigest()[:12]


def sample_tasks(maze: Maze, num_tasks: int, seed: int, skip_solved: bool, goal_at_rest: bool) -> Tasks:
    """DINO-WM's sequence of start and goal pairs: the n-th pair is drawn by a generator seeded with seed * n + 1.

    Args:
        skip_solved: leave out pairs whose start is within the success radius of the goal (12.8 % of them in the U-maze).
        goal_at_rest: set the goal's velocity to zero; a frame does not show it, and only a row that sees states feels it.

    Raises:
        ValueError: seed 0, which would draw the same pair over and over.
    """
    if num_tasks < 1:
        raise ValueError(f"num_tasks ({num_tasks}) must be positive")
    if seed < 1:
        raise ValueError(f"the tasks' seed ({seed}) must be positive: task n is drawn with seed * n + 1")
    pairs, seeds, n = [], [], 0
    while len(pairs) < num_tasks:
        rng = np.random.RandomState(seed * n + 1)
        start, goal = maze.sample_state(rng), maze.sample_state(rng)
        if not (skip_solved and is_success(start, goal)):
            pairs.append((start, goal))
            seeds.append(seed * n + 1)
        n += 1
    starts, goals = (np.stack(states) for states in zip(*pairs, strict=True))
    if goal_at_rest:
        goals[:, 2:] = 0
    return Tasks(starts, goals, np.array(seeds))


def load_or_sample(folder: Path, maze: Maze, num_tasks: int, seed: int, skip_solved: bool, goal_at_rest: bool) -> Tasks:
    """The saved tasks of these settings, sampled and saved the first time."""
    kind = f"{'unsolved' if skip_solved else 'all'}_{'rest' if goal_at_rest else 'moving'}"
    layout = hashlib.sha256("".join(maze.rows).encode()).hexdigest()[:6]
    path = folder / f"{maze.name}_{layout}_{num_tasks}_seed{seed}_{kind}.npz"
    if path.exists():
        try:
            with np.load(path) as file:
                return Tasks(file["start"], file["goal"], file["seeds"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it and the same tasks are sampled again") from None
    tasks = sample_tasks(maze, num_tasks, seed, skip_solved, goal_at_rest)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, start=tasks.start, goal=tasks.goal, seeds=tasks.seeds)
    temporary.rename(path)
    return tasks
