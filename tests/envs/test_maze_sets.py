"""Maps drawn by the sampler can be solved, training and test sets share none, and many are stepped and drawn at once."""

from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy.ndimage import label

from wmbench.envs.maze_sets import KINDS, MAP, MazeSet, asked_maze, maze_of, played_maze, split_of
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import Physics
from wmbench.envs.point_maze import PointMaze
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.tasks import sample_tasks

ENV = {"maze": "random", "maze_kind": "maze", "maze_seed": 2, "num_mazes": 6, "maze_split": None}


@pytest.mark.parametrize("kind", KINDS)
def test_every_free_cell_of_every_map_can_be_reached(kind: str):
    for maze in MazeSet(kind, 0, 25, "train").mazes:
        regions: Any = label(~maze.walls)
        assert regions[1] == 1
        cells = np.argwhere(~maze.walls) - 0.2
        assert maze.has_path(np.broadcast_to(cells[:1], cells.shape), cells).all()


@pytest.mark.parametrize(("kind", "number"), [("door", 25), ("maze", 100)])
def test_training_and_test_sets_of_any_seeds_have_no_map_in_common(kind: str, number: int):
    train = {maze.rows for seed in (0, 1) for maze in MazeSet(kind, seed, number, "train").mazes}
    test = {maze.rows for seed in (0, 7) for maze in MazeSet(kind, seed, number, "test").mazes}
    assert len(train) >= number and not train & test
    assert {split_of(rows) for rows in train} == {"train"} and {split_of(rows) for rows in test} == {"test"}


def test_a_set_has_different_maps_and_its_rows_name_it():
    drawn = MazeSet("maze", 3, 30, "test")
    assert len({maze.rows for maze in drawn.mazes}) == len(drawn) == 30
    again = maze_of(OmegaConf.create(list(drawn.rows)))  # as a command line has it
    assert isinstance(again, MazeSet) and [maze.rows for maze in again.mazes] == [maze.rows for maze in drawn.mazes]
    other = MazeSet("maze", 4, 30, "test")
    assert {maze.rows for maze in other.mazes} != {maze.rows for maze in drawn.mazes}


def test_novelty_is_the_number_of_cells_that_differ_from_the_nearest_training_map():
    assert (MazeSet("maze", 0, 8, "train").novelty == 0).all()
    novelty, unseen = MazeSet("door", 0, 10, "test").novelty, MazeSet("door", 0, 10, "test").mazes
    seen = MazeSet("door", 0, 10, "train").mazes
    assert (novelty > 0).all()
    assert novelty[0] == min(np.sum(np.array(list("".join(unseen[0].rows))) != list("".join(m.rows))) for m in seen)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"maze_kind": "spiral"}, r"env.maze_kind \('spiral'\) must be one of: door, maze"),
        ({"maze_split": "valid"}, r"env.maze_split \('valid'\) must be one of: train, test"),
        ({"num_mazes": 0}, r"env.num_mazes \(0\) must be a whole number of at least 1"),
        ({"num_mazes": 10**30}, r"env.num_mazes \(10+\) must be a whole number of at least 1 and at most 10000"),
        ({"maze_seed": -1}, r"env.maze_seed \(-1\) must be a whole number of at least 0"),
        ({"num_mazes": 60, "maze_kind": "door"}, r"there are only \d+ train maps of kind door; lower env.num_mazes \(60\)"),
    ],
)
def test_a_set_that_cannot_be_drawn_is_refused_in_one_line(changed: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        asked_maze(ENV | changed, "train")
    assert "\n" not in str(caught.value)


def test_what_looks_at_one_maze_refuses_a_set():
    with pytest.raises(ValueError, match=r"env.maze=random is a set of maps, and this looks at one"):
        PointMaze(maze=MazeSet("maze", 0, 2, "train").rows, renderer="warp")


def test_a_run_plays_unseen_maps_of_its_set_unless_asked_for_its_own():
    trained = asked_maze(ENV, "train")
    assert trained == ("random", "maze", "2", "6", "train")
    assert played_maze(trained, ENV) == ("random", "maze", "2", "6", "test")
    assert played_maze(trained, ENV | {"maze_split": "train"}) == trained
    assert played_maze(("###", "#.#", "###"), ENV) == ("###", "#.#", "###")


def test_many_maps_are_stepped_and_drawn_at_once_each_as_it_is_alone():
    world = PointMazes(asked_maze(ENV, "train"), image_size=24)
    rng = np.random.RandomState(0)
    start = np.stack([world.maze.sample_state(rng, number) for number in (4, 1, 4, 0, 5)])
    world.set_state(start)
    for _ in range(8):  # into walls
        world.step(np.ones((5, 2)))
    frames = world.frames(world.state)
    for state, begun in zip(world.state, start, strict=True):
        maze = world.maze.at(state)
        alone = Physics(maze, num_threads=1).rollout(begun[None, :MAP], np.ones((1, 8, 2)))[0, -1]
        assert (state[:MAP] == alone).all() and state[MAP] == begun[MAP]
    one = PointMazes(world.maze.at(start[0]).rows, image_size=24)
    assert (one.frames(world.state[[0, 2], :4]) == frames[[0, 2]]).all()
    assert len({frame.tobytes() for frame in frames}) == 5


def test_ways_are_those_of_the_states_own_map():
    drawn, rng = MazeSet("maze", 2, 3, "train"), np.random.RandomState(1)
    start = np.stack([drawn.sample_state(rng, number) for number in (2, 0, 1)])
    goal = np.stack([drawn.sample_state(rng, number) for number in (2, 0, 1)])
    lengths = [drawn.mazes[number].geodesic(start[[k]], goal[[k]])[0] for k, number in enumerate((2, 0, 1))]
    assert drawn.geodesic(start, goal).tolist() == lengths
    assert not drawn.has_path(start, goal[[1, 2, 0]]).any()  # into another map there is none


def test_tasks_take_maps_in_turn_rest_in_them_and_have_their_novelty_as_stratum():
    drawn = MazeSet("door", 1, 4, "test")
    tasks = sample_tasks(drawn, 12, 5, skip_solved=True, goal_at_rest=True, start_at_rest=True)
    assert (tasks.start[:, MAP] == tasks.goal[:, MAP]).all() and set(tasks.start[:, MAP]) == {0, 1, 2, 3}
    assert not tasks.start[:, 2:4].any() and drawn.has_path(tasks.start, tasks.goal).all()
    assert tasks.stratum is not None and tasks.stratum.tolist() == drawn.novelty[tasks.start[:, MAP].astype(int)].tolist()


def test_a_set_has_no_other_appearance_than_a_sensors():
    rows = asked_maze(ENV, "train")
    assert PointMazes(rows, appearance={"noise": 0.05}, image_size=0).appearance.names == ("noise",)
    with pytest.raises(ValueError, match="leave out of appearance: ball_size"):
        PointMazes(rows, appearance={"ball_size": 1.2})


def test_one_maze_is_its_own_map():
    maze = Maze("umaze")
    assert maze.at(np.zeros(4)) is maze and maze_of("umaze").name == "umaze"
