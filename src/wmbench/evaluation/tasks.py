"""Tasks: starts and goals, sampled once, saved, and the same for every row of a table."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from wmbench.data.episodes import EpisodeSet
from wmbench.data.normalizer import fit_normalizer
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import Physics, is_success

GOAL_SOURCES = ("random_state", "dset", "random_action", "file")


@dataclass(frozen=True)
class Tasks:
    """n starts and goals (x, y [m], vx, vy [m/s]), and what drew them: random generators' seeds, or rows of the data."""

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

    def draw(n: int) -> tuple[ndarray, ndarray, int]:
        rng = np.random.RandomState(seed * n + 1)
        return maze.sample_state(rng), maze.sample_state(rng), seed * n + 1

    return _collect(draw, num_tasks, seed, skip_solved, goal_at_rest)


def replay_tasks(
    episodes: EpisodeSet,
    physics: Physics,
    num_tasks: int,
    seed: int,
    num_steps: int,
    random_actions: bool,
    skip_solved: bool,
    goal_at_rest: bool,
) -> Tasks:
    """Starts from recorded validation episodes; the goal is where num_steps actions lead from there in the simulator.

    DINO-WM's goal sources `dset` (the recorded actions) and `random_action` (normal ones in normalised units, which the
    simulator clips). It draws segments with Python's global generator; here the n-th comes from one keyed by (seed, n).

    Raises:
        ValueError: no validation episode as long as a segment.
    """
    _, validation = episodes.split()
    long_enough = validation[episodes.ep_len[validation] > num_steps]
    if not len(long_enough):
        raise ValueError(f"{episodes.path} has no validation episode with the {num_steps + 1} steps of a task")
    normalizer = fit_normalizer(episodes)

    def draw(n: int) -> tuple[ndarray, ndarray, int]:
        rng = np.random.default_rng((seed, n))
        episode = rng.choice(long_enough)
        row = int(episodes.ep_offset[episode] + rng.integers(episodes.ep_len[episode] - num_steps))
        actions = episodes.action[row : row + num_steps]
        if random_actions:
            drawn = torch.from_numpy(rng.standard_normal(actions.shape, dtype=np.float32))
            actions = normalizer.denormalize_action(drawn).numpy()
        start = episodes.state[row].astype(np.float64)
        return start, physics.rollout(start[None], actions[None])[0, -1], row

    return _collect(draw, num_tasks, seed, skip_solved, goal_at_rest)


def _collect(
    draw: Callable[[int], tuple[ndarray, ndarray, int]], num_tasks: int, seed: int, skip_solved: bool, goal_at_rest: bool
) -> Tasks:
    """The first num_tasks of the pairs that draw(0), draw(1), ... give."""
    if num_tasks < 1:
        raise ValueError(f"num_tasks ({num_tasks}) must be positive")
    if seed < 1:
        raise ValueError(f"the tasks' seed ({seed}) must be positive: task n is drawn with seed * n + 1")
    pairs, n = [], 0
    while len(pairs) < num_tasks:
        start, goal, drawn_by = draw(n)
        if not (skip_solved and is_success(start, goal)):
            pairs.append((start, goal, drawn_by))
        n += 1
        if n > 1000 + 1000 * num_tasks:
            raise ValueError(f"only {len(pairs)} of {n} sampled tasks are not solved at their start; set skip_solved=false")
    starts, goals, seeds = (np.stack(column) for column in zip(*pairs, strict=True))
    if goal_at_rest:
        goals[:, 2:] = 0
    return Tasks(starts, goals, seeds)


def task_file(
    folder: Path, maze: Maze, num_tasks: int, seed: int, skip_solved: bool, goal_at_rest: bool, source: str = ""
) -> Path:
    """Where tasks of these settings are kept; `source` names what they were made of beside the maze."""
    kind = f"{'unsolved' if skip_solved else 'all'}_{'rest' if goal_at_rest else 'moving'}"
    layout = hashlib.sha256("".join(maze.rows).encode()).hexdigest()[:6]
    return folder / f"{maze.name}_{layout}_{num_tasks}_seed{seed}_{kind}{source}.npz"


def saved(path: Path, make: Callable[[], Tasks]) -> Tasks:
    """The tasks in a file; made and saved the first time."""
    if path.exists():
        return load(path)
    tasks = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, start=tasks.start, goal=tasks.goal, seeds=tasks.seeds)
    temporary.rename(path)
    return tasks


def load(path: Path) -> Tasks:
    """Raises ValueError where the file is damaged or holds something else."""
    try:
        with np.load(path) as file:
            return Tasks(file["start"], file["goal"], file["seeds"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged or no task file ({error}); delete it and the same tasks are sampled again"
        ) from None
