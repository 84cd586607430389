"""Tasks: the original's fifty, the skipped ones, and files that keep them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wmbench.data import episodes as storage
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import Physics
from wmbench.evaluation.tasks import Tasks, replay_tasks, sample_tasks, saved, task_file


@pytest.fixture
def maze() -> Maze:
    return Maze("umaze")


@pytest.fixture
def originals(maze: Maze) -> Tasks:
    return sample_tasks(maze, 50, 99, skip_solved=False, goal_at_rest=False)


def kept(folder: Path, maze: Maze, **settings) -> Tasks:
    return saved(task_file(folder, maze, **settings), lambda: sample_tasks(maze, **settings))


def solved_at_the_start(tasks: Tasks) -> np.ndarray:
    return np.hypot(*(tasks.start - tasks.goal)[:, :2].T) < 0.5


def test_they_are_dino_wms_fifty(originals: Tasks, golden: Path):
    with np.load(golden / "eval_tasks_random_state_seed99.npz") as recorded:
        np.testing.assert_array_equal(originals.start, recorded["init"])
        np.testing.assert_array_equal(originals.goal, recorded["goal"])
        np.testing.assert_array_equal(originals.seeds, recorded["seeds"])


def test_skipped_tasks_are_exactly_those_solved_at_the_start(maze: Maze, originals: Tasks):
    solved = solved_at_the_start(originals)
    assert solved.sum() == 9  # of DINO-WM's fifty
    few = sample_tasks(maze, 41, 99, skip_solved=True, goal_at_rest=False)
    np.testing.assert_array_equal(few.start, originals.start[~solved])
    np.testing.assert_array_equal(few.goal, originals.goal[~solved])
    np.testing.assert_array_equal(few.seeds, originals.seeds[~solved])


def test_a_goal_at_rest_differs_in_its_velocity_alone(maze: Maze, originals: Tasks):
    resting = sample_tasks(maze, 50, 99, skip_solved=False, goal_at_rest=True)
    np.testing.assert_array_equal(resting.start, originals.start)
    np.testing.assert_array_equal(resting.goal[:, :2], originals.goal[:, :2])
    assert originals.goal[:, 2:].all() and not resting.goal[:, 2:].any()


def test_fewer_tasks_are_the_first_ones(maze: Maze, originals: Tasks):
    few = sample_tasks(maze, 3, 99, skip_solved=False, goal_at_rest=False)
    assert len(few) == 3
    np.testing.assert_array_equal(few.start, originals.start[:3])


def test_the_hash_names_starts_and_goals(originals: Tasks):
    same = Tasks(originals.start.copy(), originals.goal.copy(), originals.seeds)
    assert same.hash == originals.hash
    moved_start, moved_goal = originals.start.copy(), originals.goal.copy()
    moved_start[7, 2] += 1e-9
    moved_goal[49, 0] += 1e-9
    swapped = Tasks(originals.goal, originals.start, originals.seeds)
    others = [replace(originals, start=moved_start), replace(originals, goal=moved_goal), swapped]
    assert len({originals.hash, *(other.hash for other in others)}) == 4


def test_saved_tasks_are_loaded_as_they_were(maze: Maze, tmp_path: Path):
    settings = {"num_tasks": 6, "seed": 5, "skip_solved": True, "goal_at_rest": True}
    first = kept(tmp_path / "tasks", maze, **settings)
    again = saved(task_file(tmp_path / "tasks", maze, **settings), lambda: pytest.fail("sampled twice"))
    assert again.hash == first.hash
    for name in ("start", "goal", "seeds"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


@pytest.mark.parametrize(
    "changed",
    [
        {"num_tasks": 7},
        {"seed": 6},
        {"skip_solved": False},
        {"goal_at_rest": False},
        {"maze": Maze("open")},
        {"maze": Maze(["#####", "#...#", "#####"])},
    ],
    ids=lambda changed: ",".join(changed),
)
def test_tasks_of_other_settings_are_kept_apart(maze: Maze, tmp_path: Path, changed: dict):
    settings = {"maze": maze, "num_tasks": 6, "seed": 5, "skip_solved": True, "goal_at_rest": True}
    kept(tmp_path, **settings)
    other = kept(tmp_path, **settings | changed)
    assert len(list(tmp_path.iterdir())) == 2
    assert other.hash == sample_tasks(**settings | changed).hash


def test_a_damaged_file_is_refused_by_name(maze: Maze, tmp_path: Path):
    settings = {"num_tasks": 6, "seed": 5, "skip_solved": True, "goal_at_rest": True}
    kept(tmp_path, maze, **settings)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=path.name):
        kept(tmp_path, maze, **settings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"num_tasks": 0}, r"num_tasks \(0\) must be positive"), ({"seed": 0}, r"seed \(0\) must be positive")],
)
def test_settings_that_cannot_work_are_refused_by_name(maze: Maze, changed: dict, message: str):
    settings = {"num_tasks": 6, "seed": 5, "skip_solved": True, "goal_at_rest": True}
    with pytest.raises(ValueError, match=message):
        sample_tasks(maze, **settings | changed)


@pytest.fixture
def recorded(maze: Maze, tmp_path: Path) -> storage.Episodes:
    """Forty episodes of eight steps as the simulator plays them; four of them validate."""
    path = tmp_path / "recorded.h5"
    storage.create(path, {"num_episodes": 40, "episode_length": 8, "store_every": 1, "image_size": 2})
    start = np.stack([maze.sample_state(np.random.RandomState(k)) for k in range(40)])
    action = np.random.default_rng(0).uniform(-1, 1, (40, 8, 2)).astype(np.float32)
    later = Physics(maze, num_threads=1).rollout(start, action[:, :-1])
    columns = storage.map_columns(path, "r+")
    columns["action"][:] = action.reshape(-1, 2)
    columns["state"][:] = np.concatenate([start[:, None], later], 1).reshape(-1, 4)
    columns["proprio"][:] = columns["state"]
    return storage.Episodes(path)


@pytest.fixture
def physics(maze: Maze) -> Physics:
    return Physics(maze, num_threads=1)


def test_replayed_goals_are_the_recorded_states_some_steps_later(recorded: storage.Episodes, physics: Physics):
    tasks = replay_tasks(recorded, physics, 30, 7, 5, random_actions=False, skip_solved=False, goal_at_rest=False)
    assert (
        np.isin(tasks.seeds // 8, recorded.split()[1]).all() and (tasks.seeds % 8 <= 2).all()
    )  # five steps later is in them
    assert len(set(tasks.seeds % 8)) == 3 and len(set(tasks.seeds // 8)) == 4
    np.testing.assert_array_equal(tasks.start, recorded.state[tasks.seeds].astype(float))
    np.testing.assert_allclose(tasks.goal, recorded.state[tasks.seeds + 5], atol=1e-5)


def test_random_actions_start_where_replayed_ones_do_and_end_elsewhere(recorded: storage.Episodes, physics: Physics):
    settings = {"skip_solved": False, "goal_at_rest": False}
    replayed = replay_tasks(recorded, physics, 30, 7, 5, random_actions=False, **settings)
    other = replay_tasks(recorded, physics, 30, 7, 5, random_actions=True, **settings)
    np.testing.assert_array_equal(other.start, replayed.start)
    assert (np.abs(other.goal - replayed.goal).max(1) > 1e-3).all()
    assert other.hash == replay_tasks(recorded, physics, 30, 7, 5, random_actions=True, **settings).hash


def test_segments_longer_than_every_episode_are_refused(recorded: storage.Episodes, physics: Physics):
    with pytest.raises(ValueError, match=r"recorded.h5 has no validation episode with the 9 steps of a task"):
        replay_tasks(recorded, physics, 3, 7, 8, random_actions=False, skip_solved=False, goal_at_rest=False)


def test_goals_that_cannot_be_found_are_given_up_on(recorded: storage.Episodes, physics: Physics):
    """One step from its start a ball is always within the success radius of where it was."""
    with pytest.raises(ValueError, match="not solved at their start; set skip_solved=false"):
        replay_tasks(recorded, physics, 1, 7, 1, random_actions=False, skip_solved=True, goal_at_rest=False)
