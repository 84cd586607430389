"""Why an episode failed, by a rule: a wall, places that training never showed, a wrong prediction, or a wrong aim."""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from wmbench.data.episodes import EpisodeSet
from wmbench.envs.mazes import BALL_RADIUS, Maze
from wmbench.envs.physics import SUCCESS_RADIUS

TOUCHING = 0.02  # gap between ball and wall that counts as contact [m]
STILL = 0.25  # way in the last quarter of an episode below which the ball is stuck [m]
CELL = 0.25  # side of the squares in which training's visits are counted [m]
RARE = 0.05  # of the mean visits of the squares that were visited at all

WALL, COVERAGE, PREDICTION, COST, UNKNOWN = "wall", "coverage", "prediction", "cost minimum elsewhere", "not known"
MEANINGS = {
    WALL: "in the last quarter of its time the ball hardly moved and touched a wall for at least half of it",
    COVERAGE: "the ball spent at least half of its last quarter where the training episodes hardly ever were",
    PREDICTION: "at least half of the plans were imagined to end at the goal, but the ball did not get there",
    COST: "most plans were not even imagined to end at the goal: the cost was lowest elsewhere, or the search too short",
    UNKNOWN: "none of the first two, and what the plans were imagined to do was not kept",
}
RULE = "The first that holds, of a task whose goal was never reached: " + "; ".join(
    f"{label}: {meaning}" for label, meaning in MEANINGS.items()
)


def count_visits(episodes: EpisodeSet, maze: Maze) -> Float[ndarray, "X Y"]:
    """How often a collection's frames show the ball in each square of a maze, the mean of the visited squares being 1."""
    edges = [np.arange(-1, size + CELL, CELL) for size in maze.walls.shape]
    position = np.asarray(episodes.state)[:, :2]
    visits = np.histogram2d(position[:, 0], position[:, 1], bins=edges)[0]
    return visits / visits[visits > 0].mean() if visits.any() else visits


def label_failures(
    states: Float[ndarray, "n steps 4"],
    goal: Float[ndarray, "n 2"],
    maze: Maze,
    visits: Float[ndarray, "X Y"] | None = None,
    imagined: Float[ndarray, "n K 2"] | None = None,
) -> list[str]:
    """Label each of n failed episodes.

    Args:
        visits: see count_visits.
        imagined: where each of K plans was imagined to end; NaN where a plan was not made.
    """
    last = states[:, -max(2, states.shape[1] // 4) :, :2]
    seldom = np.zeros(len(states), bool) if visits is None else _is_rare(last, visits)
    is_stuck = _is_stuck(last, maze)
    labels = []
    for task in range(len(states)):
        if is_stuck[task]:
            labels.append(WALL)
        elif seldom[task]:
            labels.append(COVERAGE)
        else:
            labels.append(UNKNOWN if imagined is None else _by_plans(imagined[task], goal[task]))
    return labels


def _is_stuck(last: Float[ndarray, "n steps 2"], maze: Maze) -> Bool[ndarray, " n"]:
    way = np.linalg.norm(np.diff(last, axis=1), axis=-1).sum(1)
    touches = maze.clearance(last) < BALL_RADIUS + TOUCHING
    return (way < STILL) & (touches.mean(1) >= 0.5)


def _is_rare(last: Float[ndarray, "n steps 2"], visits: Float[ndarray, "X Y"]) -> Bool[ndarray, " n"]:
    square = np.clip(np.floor((last + 1) / CELL).astype(int), 0, np.array(visits.shape) - 1)
    return (visits[square[..., 0], square[..., 1]] < RARE).mean(1) >= 0.5


def _by_plans(ends: Float[ndarray, "K 2"], goal: Float[ndarray, "2"]) -> str:
    ends = ends[np.isfinite(ends).all(1)]
    if not len(ends):
        return UNKNOWN
    return PREDICTION if (np.linalg.norm(ends - goal, axis=-1) < SUCCESS_RADIUS).mean() >= 0.5 else COST
