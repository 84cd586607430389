"""Labels of failures: each on a path made for it."""

import numpy as np
import pytest

from wmbench.envs.mazes import Maze
from wmbench.reports.study_failures import COST, COVERAGE, PREDICTION, UNKNOWN, WALL, label_failures

MAZE = Maze("umaze")
GOAL = np.array([[0.8, 2.8]])


def path(*corners: tuple[float, float], steps: int = 40) -> np.ndarray:
    """A path at even pace along corners, as states of one episode."""
    line = np.array(corners, float)
    at = np.linspace(0, len(corners) - 1, steps + 1)
    position = np.stack([np.interp(at, range(len(corners)), line[:, k]) for k in range(2)], -1)
    return np.concatenate([position, np.zeros_like(position)], -1)[None]


def test_a_ball_that_rests_against_a_wall_failed_at_the_wall():
    states = path((0.8, 0.8), (0.4, 0.8), (0.4, 0.8), (0.4, 0.8))
    assert label_failures(states, GOAL, MAZE) == [WALL]


def test_a_ball_that_rests_in_the_open_did_not_fail_at_a_wall():
    states = path((0.6, 0.8), (0.8, 0.8), (0.8, 0.8), (0.8, 0.8))
    assert label_failures(states, GOAL, MAZE) == [UNKNOWN]


def test_a_ball_where_training_never_was_failed_for_lack_of_coverage():
    visits = np.ones((30, 30))
    states = path((0.8, 0.8), (0.8, 1.6), (0.8, 2.0))
    assert label_failures(states, GOAL, MAZE, visits) == [UNKNOWN]
    visits[:, 9:] = 0  # y of 1.25 m and more
    assert label_failures(states, GOAL, MAZE, visits) == [COVERAGE]


@pytest.mark.parametrize(
    ("ends", "label"), [([0.1, 0.2], PREDICTION), ([0.1, 2.0], PREDICTION), ([1.0, 2.0], COST), ([np.nan, np.nan], UNKNOWN)]
)
def test_plans_that_were_imagined_at_the_goal_blame_the_prediction_and_others_the_cost(ends, label):
    imagined = GOAL[:, None] - np.array(ends)[None, :, None] * np.array([0.0, 1.0])
    assert label_failures(path((0.8, 0.8), (0.8, 1.6), (0.8, 2.0)), GOAL, MAZE, imagined=imagined) == [label]
