"""The shipped tasks of protocol=bench: what they promise, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from wmbench.encoders.weights import file_hash
from wmbench.envs.mazes import MAPS, Maze
from wmbench.evaluation import shipped as module
from wmbench.evaluation import stratified
from wmbench.evaluation.shipped import FOLDER, SPLITS, read_hashes, shipped_tasks, write_tasks
from wmbench.evaluation.stratified import EDGES, stratified_tasks
from wmbench.evaluation.tasks import Tasks
from wmbench.files import ROOT, shipped

FILES = [(maze, split) for maze in EDGES for split in SPLITS]


@pytest.mark.parametrize(("maze", "split"), FILES)
def test_tasks_are_at_rest_unsolved_and_equally_many_in_each_class_of_distance(maze: str, split: str):
    tasks = shipped_tasks(Maze(maze), split, None)
    assert len(tasks) == {"validation": 200, "test": 500}[split]
    assert not tasks.start[:, 2:].any() and not tasks.goal[:, 2:].any()
    assert (np.linalg.norm(tasks.start - tasks.goal, axis=1) >= 0.5).all()
    way = Maze(maze).geodesic(tasks.start[:, :2], tasks.goal[:, :2])
    np.testing.assert_array_equal(tasks.stratum, np.digitize(way, EDGES[maze]) - 1)
    with np.load(shipped(FOLDER) / f"{maze}_{split}.npz") as file:
        np.testing.assert_allclose(file["geodesic"], way)
    for first in (7, 101, len(tasks)):
        counts = np.bincount(shipped_tasks(Maze(maze), split, first).stratum, minlength=len(EDGES[maze]) - 1)
        assert counts.sum() == first and counts.max() - counts.min() <= 1


@pytest.mark.parametrize("maze", EDGES)
def test_no_test_task_was_there_to_choose_by(maze: str):
    validation, test = (shipped_tasks(Maze(maze), split, None) for split in SPLITS)
    assert not set(validation.seeds) & set(test.seeds)
    assert len(np.unique(np.concatenate([validation.start, test.start]), axis=0)) == 700


def test_the_documentation_names_the_hash_of_every_file_and_they_are_right():
    hashes, words = read_hashes(shipped(FOLDER)), (ROOT / "docs" / "protocols.md").read_text()
    assert set(hashes) == {f"{maze}_{split}.npz" for maze, split in FILES}
    for name, known in hashes.items():
        assert file_hash(shipped(FOLDER) / name) == known
        assert f"`{name}` | `{known[:12]}`" in words


@pytest.fixture
def copied(tmp_path: Path, monkeypatch) -> Path:
    shutil.copytree(shipped(FOLDER), tmp_path / "bench")
    monkeypatch.setattr(module, "shipped", lambda name: tmp_path / "bench")
    return tmp_path / "bench"


def test_a_changed_file_is_refused_with_the_way_out(copied: Path):
    path = copied / "umaze_test.npz"
    tasks = shipped_tasks(Maze("umaze"), "test", None)
    tasks.goal[3, 0] += 1e-6
    np.savez(path, start=tasks.start, goal=tasks.goal, seeds=tasks.seeds, stratum=tasks.stratum)
    with pytest.raises(ValueError, match=r"is not the file that SHA256SUMS .*git checkout -- data/tasks/bench"):
        shipped_tasks(Maze("umaze"), "test", None)
    write_tasks(copied, "umaze_test", Maze("umaze"), tasks)
    assert shipped_tasks(Maze("umaze"), "test", None).hash == tasks.hash


@pytest.mark.parametrize(
    ("maze", "split", "number", "message"),
    [
        ("umaze", "test", 501, r"protocol.num_tasks \(501\) must be from 1 to the 500 in umaze_test.npz"),
        ("umaze", "test", 0, r"protocol.num_tasks \(0\) must be from 1"),
        ("umaze", "train", 5, r"protocol.split \(train\) .* must be validation or test"),
        ("umaze", None, 5, r"protocol.split \(None\) .* use protocol=bench"),
        ("open", "test", 5, r"no tasks in open, but in .*umaze.*; sample some with protocol.goal_source=random_state"),
    ],
)
def test_tasks_that_there_are_not_are_refused_by_name(maze: str, split: str | None, number: int, message: str):
    with pytest.raises(ValueError, match=message):
        shipped_tasks(Maze(maze), split, number)


def test_only_tasks_that_an_attempt_solves_are_kept_and_later_attempts_see_what_is_left(monkeypatch):
    monkeypatch.setattr(stratified, "CANDIDATES", 8)
    asked: list[int] = []

    def upper(tasks: Tasks) -> np.ndarray:
        asked.append(len(tasks))
        return tasks.start[:, 1] > 2.2

    def left(tasks: Tasks) -> np.ndarray:
        asked.append(len(tasks))
        assert not (tasks.start[:, 1] > 2.2).any()
        return tasks.start[:, 0] < 0.9

    tasks, dropped = stratified_tasks("umaze", 8, 7, [upper, left])
    assert ((tasks.start[:, 1] > 2.2) | (tasks.start[:, 0] < 0.9)).all() and dropped > 0
    assert asked[0] == 8 and 0 < asked[1] < 8
    np.testing.assert_array_equal(tasks.stratum, np.tile(range(4), 2))
    again, _ = stratified_tasks("umaze", 8, 7, [upper, left])
    assert again.hash == tasks.hash


def test_a_number_that_strata_cannot_share_is_refused():
    with pytest.raises(ValueError, match="10 tasks cannot be shared equally by the 4 strata of umaze"):
        stratified_tasks("umaze", 10, 7, [])


def test_every_maze_with_tasks_is_a_known_one():
    assert set(EDGES) <= set(MAPS)
