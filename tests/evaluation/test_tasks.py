"""Tasks: the original's fifty, the skipped ones, and files that keep them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wmbench.envs.mazes import Maze
from wmbench.evaluation import tasks as tasks_module
from wmbench.evaluation.tasks import Tasks, load_or_sample, sample_tasks


@pytest.fixture
def maze() -> Maze:
    return Maze("umaze")


@pytest.fixture
def originals(maze: Maze) -> Tasks:
    return sample_tasks(maze, 50, 99, skip_solved=False, goal_at_rest=False)


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
    kept = sample_tasks(maze, 41, 99, skip_solved=True, goal_at_rest=False)
    np.testing.assert_array_equal(kept.start, originals.start[~solved])
    np.testing.assert_array_equal(kept.goal, originals.goal[~solved])
    np.testing.assert_array_equal(kept.seeds, originals.seeds[~solved])


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


def test_saved_tasks_are_loaded_as_they_were(maze: Maze, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = {"num_tasks": 6, "seed": 5, "skip_solved": True, "goal_at_rest": True}
    first = load_or_sample(tmp_path / "tasks", maze, **settings)
    monkeypatch.delattr(tasks_module, "sample_tasks")  # a second sampling would fail
    again = load_or_sample(tmp_path / "tasks", maze, **settings)
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
    load_or_sample(tmp_path, **settings)
    other = load_or_sample(tmp_path, **settings | changed)
    assert len(list(tmp_path.iterdir())) == 2
    assert other.hash == sample_tasks(**settings | changed).hash


def test_a_damaged_file_is_refused_by_name(maze: Maze, tmp_path: Path):
    settings = {"num_tasks": 6, "seed": 5, "skip_solved": True, "goal_at_rest": True}
    load_or_sample(tmp_path, maze, **settings)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=path.name):
        load_or_sample(tmp_path, maze, **settings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"num_tasks": 0}, r"num_tasks \(0\) must be positive"), ({"seed": 0}, r"seed \(0\) must be positive")],
)
def test_settings_that_cannot_work_are_refused_by_name(maze: Maze, changed: dict, message: str):
    settings = {"num_tasks": 6, "seed": 5, "skip_solved": True, "goal_at_rest": True}
    with pytest.raises(ValueError, match=message):
        sample_tasks(maze, **settings | changed)
