"""What collection's policies do: each episode draws for itself, actions stay in range, and goals are sought by open ways."""

import json

import h5py
import numpy as np
import pytest

from wmbench.data.behaviour import BROWNIAN_STEP, actions_of, behaviour_words, share_visited
from wmbench.data.collection import collect_chunk, finish, make_manifest, open_partial, start_worker
from wmbench.data.episodes import Episodes, partial_path
from wmbench.data.facts import complete
from wmbench.envs.maze_sets import MazeSet
from wmbench.envs.mazes import BALL_RADIUS, Maze
from wmbench.envs.vector import PointMazes

SETTINGS = {"num_episodes": 6, "episode_length": 6, "image_size": 8, "store_every": 3, "seed": 0, "appearance": "clean"}
SETTINGS |= {"behaviour": "uniform", "behaviour_noise": 0.3}
ENV = {"name": "point_maze", "maze": "umaze", "renderer": "auto", "render_lag": False}
RANDOM = ENV | {"maze": "random", "maze_kind": "door", "maze_seed": 1, "num_mazes": 4, "maze_split": None}


def play(name: str, noise: float = 0.0, length: int = 60, first: int = 0, number: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Actions, and states from the start on."""
    world = PointMazes("umaze", image_size=0)
    rngs = [np.random.RandomState(k) for k in range(first, first + number)]
    start = np.stack([world.maze.sample_state(rng) for rng in rngs])
    action = actions_of(world, start, rngs, length, name, noise)
    return action, np.concatenate([start[:, None], world.physics.rollout(start, action)], axis=1)


@pytest.mark.parametrize("name", ["uniform", "brownian", "goal_seeking"])
def test_actions_are_in_range_and_an_episodes_do_not_depend_on_the_others(name: str):
    together, alone = play(name, 0.3)[0], play(name, 0.3, first=2, number=1)[0]
    assert np.abs(together).max() <= 1 and together.shape == (3, 60, 2)
    assert (together[2] == alone[0]).all()


def test_uniform_actions_are_those_that_were_always_drawn():
    rng = np.random.RandomState(0)
    PointMazes("umaze", image_size=0).maze.sample_state(rng)
    assert (play("uniform")[0][0] == rng.uniform(-1, 1, (60, 2)).astype(np.float32)).all()


def test_brownian_actions_wander_by_small_steps():
    action = play("brownian", length=2000)[0]
    steps = np.diff(action, axis=1)[np.abs(action[:, :-1]) < 0.2]  # too far from -1 and 1 to be thrown back
    assert steps.std() == pytest.approx(BROWNIAN_STEP, rel=0.1)


def test_who_seeks_goals_rolls_from_end_to_end_of_the_maze_without_touching_a_wall():
    maze, states = Maze("umaze"), play("goal_seeking", length=400)[1]
    assert (maze.clearance(states[:, 40:, :2]) > BALL_RADIUS).all()  # once the speed of the start is braked
    ends = np.array([[0.8, 0.8], [2.8, 0.8]])  # both of the U's
    near = np.linalg.norm(states[:, :, None, :2] - ends, axis=-1).min(1)
    assert (near.min(0) < 0.5).all()


def test_noise_is_the_share_of_steps_with_uniform_actions():
    assert share_visited(Maze("umaze"), play("goal_seeking", 1.0, length=400)[1].reshape(-1, 4)) > 1.2 * share_visited(
        Maze("umaze"), play("goal_seeking", 0.0, length=400)[1].reshape(-1, 4)
    )


def test_the_share_that_is_visited_is_one_of_all_maps():
    maze = MazeSet("door", 0, 2, "train")
    grid = np.stack(np.meshgrid(np.arange(-0.9, 8, 0.1), np.arange(-0.9, 8, 0.1)), -1).reshape(-1, 2)
    everywhere = np.concatenate([grid, np.zeros((len(grid), 3))], axis=1)  # of map 0
    assert share_visited(maze, everywhere) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("name", "noise", "message"),
    [
        ("greedy", 0.3, r"behaviour \('greedy'\) must be one of: uniform, brownian, goal_seeking"),
        ("goal_seeking", 1.5, r"behaviour_noise \(1.5\) must be from 0 \(never\) to 1"),
        ("goal_seeking", True, r"behaviour_noise \(True\) must be from 0"),
    ],
)
def test_a_policy_that_there_is_not_is_refused(name, noise, message: str):
    with pytest.raises(ValueError, match=message):
        behaviour_words(name, noise)


def test_data_of_uniform_actions_in_one_maze_say_what_they_always_said():
    manifest = make_manifest(SETTINGS | {"env": ENV}, {})
    assert manifest["policy"] == "uniform random actions in [-1, 1] from random states"
    assert not {"behaviour", "behaviour_noise", "num_maps"} & set(manifest)
    other = make_manifest(SETTINGS | {"env": ENV, "behaviour": "goal_seeking"}, {})
    assert other["policy"].endswith("0.3 of the steps uniform random actions") and other["behaviour_noise"] == 0.3


def test_data_of_many_maps_know_the_map_of_each_episode(tmp_path):
    path = tmp_path / "maps.h5"
    manifest = make_manifest(SETTINGS | {"env": RANDOM, "behaviour": "goal_seeking"}, {})
    open_partial(path, manifest)
    start_worker(manifest)  # in this process
    digest = collect_chunk(partial_path(path), range(6), manifest)
    finish(path, manifest, [digest])
    episodes = Episodes(path)
    assert complete(episodes, **RANDOM) == []
    assert episodes.manifest["maze"] == ["random", "door", "1", "4", "train"]
    maps = MazeSet("door", 1, 4, "train").mazes
    with h5py.File(path) as file:
        assert file["map"][()].tolist() == [0, 1, 2, 3, 0, 1]  # type: ignore[index]
        assert json.loads(file.attrs["manifest"])["num_maps"] == 4  # type: ignore[arg-type]
    for k in range(6):
        rows = slice(episodes.ep_offset[k], episodes.ep_offset[k] + episodes.ep_len[k])
        assert maps[k % 4].is_free(episodes.state[rows, :2]).all()
