"""Costs over a maze: a distance that is the way's length ranks perfectly, and a planted hole is counted."""

import numpy as np
import pytest
import torch

from wmbench.diagnostics.landscape import grid_of, local_minima
from wmbench.diagnostics.ranking import spearman
from wmbench.diagnostics.untouched import touched, untouched_share
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import Physics

GOAL = np.array([1.05, 0.95])


def costs(maze: Maze, distance) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    positions, is_free = grid_of(maze, 0.25)
    return np.where(is_free, distance(positions), np.inf), positions, is_free


def test_the_straight_distance_of_an_open_maze_ranks_as_its_shortest_paths_do():
    maze = Maze("open")
    cost, positions, is_free = costs(maze, lambda p: np.square(p - GOAL).sum(-1))
    ways = maze.geodesic(positions[is_free], np.broadcast_to(GOAL, positions[is_free].shape))
    assert spearman(cost[is_free].round(9), np.square(ways).round(9)) == pytest.approx(1)
    assert not local_minima(cost, positions, GOAL).any()


def test_the_straight_distance_of_a_u_maze_has_a_minimum_behind_the_wall():
    maze = Maze("umaze")
    cost, positions, is_free = costs(maze, lambda p: np.square(p - GOAL).sum(-1))
    ways = maze.geodesic(positions[is_free], np.broadcast_to(GOAL, positions[is_free].shape))
    assert spearman(cost[is_free], ways) < 0.9
    (hole,) = positions[local_minima(cost, positions, GOAL)]
    assert hole[0] > 2, "in the other arm, next to the wall"


def test_a_planted_second_minimum_is_counted_and_the_goals_own_is_not():
    other = np.array([3.0, 4.0])

    def distance(p):
        return np.linalg.norm(p - GOAL, axis=-1) - 2 * np.exp(-np.square(p - other).sum(-1) / 0.05)

    cost, positions, _ = costs(Maze("open"), distance)
    (hole,) = positions[local_minima(cost, positions, GOAL)]
    assert np.linalg.norm(hole - other) < 0.2


def test_a_grid_has_whole_numbers_of_places_per_cell_at_least_a_ball_from_the_walls():
    maze = Maze("umaze")
    positions, is_free = grid_of(maze, 0.5)
    assert positions.shape == (10, 10, 2) and is_free.sum() == 28
    assert (maze.clearance(positions[is_free]) >= 0.1).all()
    with pytest.raises(ValueError, match=r"spacing \(1.5\) must be more than 0 and at most 1 m"):
        grid_of(maze, 1.5)


def test_the_ball_touches_the_tokens_that_it_is_drawn_on():
    """The centre of the map is the centre of the frame: the four middle tokens of a 4 x 4 grid."""
    physics = Physics(Maze("umaze"), num_threads=1)
    middle = np.array([[1.8, 1.8]])
    assert np.flatnonzero(touched(physics, (4, 4), middle)).tolist() == [5, 6, 9, 10]
    assert touched(physics, (1, 1), middle).all()
    right = touched(physics, (4, 4), middle + [[1.2, 0.0]]).reshape(4, 4)
    assert right[1:3, 2].all() and right[:, 0].sum() == 0 and right[0].sum() == 0, "x is a frame's column"


def test_the_share_of_the_cost_that_comes_from_elsewhere_is_known():
    """Squared distances 4, 1 and 3 of three tokens, of which the ball is on the first, the goal on none."""
    visual = torch.tensor([[[2.0], [1.0], [3**0.5]]])
    share = untouched_share(visual, torch.zeros(3, 1), np.array([[True, False, False]]), np.zeros(3, bool))
    assert share == pytest.approx(0.5)
    assert untouched_share(visual, visual[0], np.zeros((1, 3), bool), np.zeros(3, bool)) == 0
