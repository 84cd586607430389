"""Tasks for ranking: at rest, equally many in each class of distance, none out of a planner's reach."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from wmbench.envs.mazes import Maze
from wmbench.envs.physics import is_success
from wmbench.evaluation.tasks import Pair, Tasks, at_rest

# Edges of the classes: length of the shortest way from start to goal [m].
EDGES = {"umaze": (1.0, 2.0, 3.0, 4.0, 4.8), "medium": (1.0, 2.5, 4.0, 5.5, 7.0), "large": (1.0, 2.5, 4.0, 5.5, 7.0)}
SEEDS = {"validation": 10007, "test": 20011}  # primes: of their first 10,000 pairs no two have the same generator
CANDIDATES = 64  # tried at once for their reach


Attempt = Callable[[Tasks], Bool[ndarray, " n"]]  # in which of some tasks somebody reached the goal


def stratified_tasks(maze: str, num_tasks: int, seed: int, attempts: Sequence[Attempt]) -> tuple[Tasks, int]:
    """Sample the tasks of a maze; stratum k holds ways from EDGES[k] on and below EDGES[k + 1].

    Starts and goals are DINO-WM's for the seed (see sample_tasks) without their velocities. Any number of first tasks holds
    every stratum equally often, or one time more.

    Args:
        num_tasks: a multiple of the number of strata.
        attempts: to reach the goals; a task in which none succeeds is left out.

    Returns:
        the tasks, and how many were left out.
    """
    edges = EDGES[maze]
    each, rest = divmod(num_tasks, len(edges) - 1)
    if rest or not each:
        raise ValueError(f"{num_tasks} tasks cannot be shared equally by the {len(edges) - 1} strata of {maze}")
    kept: list[list[Pair]] = [[] for _ in edges[1:]]
    drawn, num_dropped = _draw(Maze(maze), seed, edges), 0
    while any(len(found) < each for found in kept):
        wanted = ((pair, k) for pair, k in drawn if len(kept[k]) < each)
        pairs, strata = zip(*islice(wanted, CANDIDATES), strict=True)
        reached = _try(_tasks(pairs), attempts)
        num_dropped += int((~reached).sum())
        for pair, k, is_kept in zip(pairs, strata, reached, strict=True):
            if is_kept and len(kept[k]) < each:
                kept[k].append(pair)
    in_turn = _tasks([pair for turn in zip(*kept, strict=True) for pair in turn])
    return replace(in_turn, stratum=np.tile(np.arange(len(kept)), each)), num_dropped


def _tasks(pairs: Sequence[Pair]) -> Tasks:
    start, goal, seeds = (np.stack(column) for column in zip(*pairs, strict=True))
    return Tasks(start, goal, seeds)


def _try(tasks: Tasks, attempts: Sequence[Attempt]) -> Bool[ndarray, " n"]:
    """Tell the tasks in which one of the attempts succeeds; the later ones see what is left."""
    reached = np.zeros(len(tasks), bool)
    for attempt in attempts:
        left = np.flatnonzero(~reached)
        if len(left):
            reached[left] = attempt(Tasks(tasks.start[left], tasks.goal[left], tasks.seeds[left]))
    return reached


def _draw(maze: Maze, seed: int, edges: tuple[float, ...]) -> Iterator[tuple[Pair, int]]:
    """Pairs at rest that are not solved at once, each with its stratum."""
    for drawn_by in count(seed + 1, seed):  # not from 1, which every seed would share
        rng = np.random.RandomState(drawn_by)
        start, goal = at_rest(maze.sample_state(rng)), at_rest(maze.sample_state(rng))
        stratum = int(np.searchsorted(edges, maze.geodesic(start[None, :2], goal[None, :2])[0], side="right")) - 1
        if 0 <= stratum < len(edges) - 1 and not is_success(start, goal):
            yield (start, goal, drawn_by), stratum
