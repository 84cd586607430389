"""Tasks: starts and goals, sampled once, saved, and the same for every row of a table."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from wmbench.data.archives import load_arrays
from wmbench.data.episodes import EpisodeSet
from wmbench.data.normalizer import fit_normalizer
from wmbench.data.official import open_episodes
from wmbench.envs.many_physics import ManyPhysics
from wmbench.envs.maze_sets import MAP, MazeSet
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import Physics, is_success
from wmbench.files import whole

GOAL_SOURCES = ("random_state", "dset", "random_action", "file", "bench")

Pair = tuple[Float[ndarray, " S"], Float[ndarray, " S"], int]  # start, goal, and what drew them: see Tasks.seeds


@dataclass(frozen=True)
class Tasks:
    """n starts and goals (x, y [m], vx, vy [m/s], in a set of maps also the map), and what drew them: random generators'
    seeds, or rows of the data.

    stratum: number of each task's class of distance, where tasks are stratified; of its map's novelty in a set of maps.
    """

    start: Float[ndarray, "n S"]
    goal: Float[ndarray, "n S"]
    seeds: Int[ndarray, " n"]
    stratum: Int[ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.start)

    @property
    def hash(self) -> str:
        """Twelve hex digits that name the starts and goals."""
        return hashlib.sha256(self.start.tobytes() + self.goal.tobytes()).hexdigest()[:12]


def make_tasks(
    folder: Path,
    physics: Physics | ManyPhysics,
    *,
    goal_source: str,
    num_tasks: int,
    seed: int,
    skip_solved: bool,
    goal_at_rest: bool,
    num_steps: int,
    data: str | Path | None,
    train_fraction: float,
    split_seed: int,
    start_at_rest: bool = False,
    data_hash: str | None = None,
) -> Tasks:
    """Load the tasks of a goal source from the folder, or sample and save them there.

    Args:
        num_steps: env steps between start and goal, of replayed tasks.
        data: the episodes to replay; train_fraction and split_seed say which of them the model has seen.
        data_hash: how the episodes' hash must begin; None for any.

    Raises:
        ValueError: an unknown goal source, none of the data it needs, other data, or data that hold too few tasks.
    """
    maze, settings = physics.maze, (num_tasks, seed, skip_solved, goal_at_rest, start_at_rest)
    if goal_source == "random_state":
        return load_or_make(task_file(folder, maze, *settings), lambda: sample_tasks(maze, *settings))
    if goal_source not in GOAL_SOURCES:
        raise ValueError(f"unknown protocol.goal_source {goal_source!r}; known: {', '.join(GOAL_SOURCES)}")
    if data is None:
        raise ValueError(f"protocol.goal_source={goal_source} replays recorded episodes; say which: env.data=PATH")
    episodes = open_episodes(data)
    if data_hash is not None and not episodes.hash.startswith(data_hash):
        raise ValueError(
            f"{episodes.path} (hash {episodes.hash[:12]}) is not what the run was trained on ({data_hash}), so nobody knows "
            "which of its episodes the run has seen; say where the run's own are, or which to replay: env.data=PATH"
        )
    _, unseen = episodes.split(train_fraction, split_seed)
    source = f"_{goal_source}{num_steps}_{episodes.hash[:6]}_split{train_fraction:g}-{split_seed}"
    return load_or_make(
        task_file(folder, maze, *settings, source),
        lambda: replay_tasks(
            episodes,
            unseen,
            physics,
            num_tasks,
            seed,
            num_steps,
            goal_source == "random_action",
            skip_solved,
            goal_at_rest,
            start_at_rest,
        ),
    )


def sample_tasks(
    maze: Maze | MazeSet, num_tasks: int, seed: int, skip_solved: bool, goal_at_rest: bool, start_at_rest: bool = False
) -> Tasks:
    """Sample DINO-WM's sequence of start and goal pairs: the n-th pair is drawn by a generator seeded with seed * n + 1.

    Pairs without a path between them, in a maze of several rooms, are left out.

    Args:
        skip_solved: leave out pairs whose start is within the success radius of the goal (12.8 % of them in the U-maze).
        goal_at_rest: set the goal's velocity to zero; a frame does not show it, and only a row that sees states feels it.
        start_at_rest: set the start's velocity to zero; else some balls roll to their goals by themselves.

    Raises:
        ValueError: seed 0, which would draw the same pair over and over, or a maze in which no pair is a task.
    """

    def pairs() -> Iterator[Pair]:
        for n, drawn_by in enumerate(count(1, seed)):
            rng, number = np.random.RandomState(drawn_by), n % num_maps
            start, goal = maze.sample_state(rng, number), maze.sample_state(rng, number)
            yield at_rest(start) if start_at_rest else start, goal, drawn_by

    num_maps = len(maze) if isinstance(maze, MazeSet) else 1  # taken in turn
    tasks = _collect(pairs(), maze, num_tasks, seed, skip_solved, goal_at_rest)
    return replace(tasks, stratum=maze.novelty[tasks.start[:, MAP].astype(int)]) if isinstance(maze, MazeSet) else tasks


def replay_tasks(
    episodes: EpisodeSet,
    unseen: Int[ndarray, " n"],
    physics: Physics | ManyPhysics,
    num_tasks: int,
    seed: int,
    num_steps: int,
    random_actions: bool,
    skip_solved: bool,
    goal_at_rest: bool,
    start_at_rest: bool = False,
) -> Tasks:
    """Draw starts from recorded episodes; the goal is where num_steps actions lead from there in the simulator.

    DINO-WM's goal sources `dset` (the recorded actions) and `random_action` (normal ones in normalised units, which the
    simulator clips). It draws segments with Python's global generator; here the n-th comes from one keyed by (seed, n),
    and none comes twice.

    Args:
        unseen: numbers of the episodes to draw from, which the model was not trained on.
        start_at_rest: stop the ball at the start; the same actions then lead elsewhere than in the recording.

    Raises:
        ValueError: episodes of another maze, or fewer segments in them than tasks.
    """
    num_segments = _count_segments(episodes, unseen, physics.maze, num_tasks, num_steps)
    long_enough = unseen[episodes.ep_len[unseen] > num_steps]
    normalizer = fit_normalizer(episodes)

    def pairs() -> Iterator[Pair]:
        replayed: set[int] = set()
        for n in count():
            rng = np.random.default_rng((seed, n))
            episode = rng.choice(long_enough)
            row = int(episodes.ep_offset[episode] + rng.integers(episodes.ep_len[episode] - num_steps))
            if row in replayed:
                continue
            replayed.add(row)
            actions = episodes.action[row : row + num_steps]
            if random_actions:
                drawn = torch.from_numpy(rng.standard_normal(actions.shape, dtype=np.float32))
                actions = normalizer.denormalize_action(drawn).numpy()
            start = episodes.state[row].astype(np.float64)
            start = at_rest(start) if start_at_rest else start
            yield start, physics.rollout(start[None], actions[None])[0, -1], row
            if len(replayed) == num_segments:
                return

    return _collect(pairs(), physics.maze, num_tasks, seed, skip_solved, goal_at_rest)


def at_rest(state: Float[ndarray, "*n S"]) -> Float[ndarray, "*n S"]:
    """The same positions without velocity."""
    stopped = state.copy()
    stopped[..., 2:4] = 0
    return stopped


def _count_segments(
    episodes: EpisodeSet, unseen: Int[ndarray, " n"], maze: Maze | MazeSet, num_tasks: int, num_steps: int
) -> int:
    """Count the segments of num_steps in the unseen episodes; raises if they are too few, or of another maze."""
    if num_steps < 1:
        raise ValueError(f"a goal {num_steps} env steps after its start is none; protocol.goal_H must be positive")
    if isinstance(maze, MazeSet):
        raise ValueError("recorded episodes are replayed in one maze; in env.maze=random goals are of random_state")
    if (recorded := episodes.manifest.get("maze")) not in (None, list(maze.rows)):
        raise ValueError(f"{episodes.path} was recorded in another maze, {recorded}, than {list(maze.rows)}")
    if not len(unseen):
        raise ValueError(f"{episodes.path}: all {len(episodes)} episodes were trained on; give others: env.data=PATH")
    num_segments = int(np.maximum(episodes.ep_len[unseen] - num_steps, 0).sum())
    if not num_segments:
        raise ValueError(f"{episodes.path} has no validation episode with the {num_steps + 1} steps of a task")
    if num_segments < num_tasks:
        raise ValueError(
            f"{num_tasks} tasks are more than the {num_segments} starts that lie {num_steps} steps or more before the end "
            f"of one of the {len(unseen)} validation episodes in {episodes.path}; lower protocol.num_tasks (n_evals)"
        )
    return num_segments


def _collect(
    pairs: Iterable[Pair], maze: Maze | MazeSet, num_tasks: int, seed: int, skip_solved: bool, goal_at_rest: bool
) -> Tasks:
    """Take the first num_tasks pairs that have a path between them and, with skip_solved, are not solved at once."""
    if num_tasks < 1:
        raise ValueError(f"num_tasks ({num_tasks}) must be positive")
    if seed < 1:
        raise ValueError(f"the tasks' seed ({seed}) must be positive: task n is drawn with seed * n + 1")
    kept = []
    for start, goal, drawn_by in islice(pairs, 1000 + 1000 * num_tasks):
        if not (skip_solved and is_success(start, goal)) and maze.has_path(start[None], goal[None])[0]:
            kept.append((start, goal, drawn_by))
        if len(kept) == num_tasks:
            break
    else:
        wanted = " and are not solved at their start; set skip_solved=false or" if skip_solved else ";"
        raise ValueError(
            f"only {len(kept)} of {num_tasks} starts and goals have a path between them{wanted} lower protocol.num_tasks"
        )
    starts, goals, seeds = (np.stack(column) for column in zip(*kept, strict=True))
    return Tasks(starts, at_rest(goals) if goal_at_rest else goals, seeds)


def task_file(
    folder: Path,
    maze: Maze | MazeSet,
    num_tasks: int,
    seed: int,
    skip_solved: bool,
    goal_at_rest: bool,
    start_at_rest: bool = False,
    source: str = "",
) -> Path:
    """Where tasks of these settings are kept; `source` names what they were made of, apart from the maze."""
    kind = f"{'unsolved' if skip_solved else 'all'}_{'rest' if goal_at_rest else 'moving'}"
    kind += "_startrest" if start_at_rest else ""  # files that are older than this setting keep their names
    layout = hashlib.sha256("".join(maze.rows).encode()).hexdigest()[:6]
    return folder / f"{maze.name}_{layout}_{num_tasks}_seed{seed}_{kind}{source}.npz"


def load_or_make(path: Path, make: Callable[[], Tasks]) -> Tasks:
    """Load the tasks in a file; the first time, make and save them."""
    if path.exists():
        try:
            return load(path)
        except ValueError as error:
            raise ValueError(f"{error}; delete it and the same tasks are sampled again") from None
    tasks = make()
    with whole(path) as temporary:
        arrays: dict[str, Any] = {"start": tasks.start, "goal": tasks.goal, "seeds": tasks.seeds}
        arrays |= {} if tasks.stratum is None else {"stratum": tasks.stratum}
        np.savez(temporary, **arrays)
    return tasks


def load(path: Path) -> Tasks:
    """Load tasks; raises ValueError where the file is damaged or holds something else."""
    try:
        arrays = load_arrays(path)
        start, goal, seeds, stratum = arrays["start"], arrays["goal"], arrays["seeds"], arrays.get("stratum")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged or no task file ({error})") from None
    check_states(path, start, goal)
    return Tasks(start, goal, seeds, stratum)


def check_states(path: Path, start: ndarray, goal: ndarray) -> None:
    """Raise where a file's starts and goals are not n pairs of four finite numbers."""
    if start.ndim != 2 or start.shape[1] not in (4, MAP + 1) or goal.shape != start.shape or not len(start):
        raise ValueError(f"{path}: states are {start.shape} and {goal.shape} instead of (n, 4)")
    for name, states in (("start", start), ("goal", goal)):
        if len(wrong := np.flatnonzero(~np.isfinite(states).all(1))):
            raise ValueError(f"{path}: the {name} of task {wrong[0]} is {states[wrong[0]].tolist()}; it must be finite")
