"""Tasks from files: ours, DINO-WM's pickles, and files that would run something."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from wmbench.envs.mazes import Maze
from wmbench.evaluation.targets import read_targets
from wmbench.evaluation.tasks import Tasks, load_or_make, sample_tasks

STATE_0, STATE_G = np.arange(12.0).reshape(3, 4), -np.arange(12.0).reshape(3, 4)


def targets(**changed) -> dict:
    """What DINO-WM's planner dumps."""
    frames = {"visual": np.zeros((3, 1, 6, 6, 3), np.uint8), "proprio": STATE_0[:, None].astype(np.float32)}
    content = {"obs_0": frames, "obs_g": frames, "state_0": STATE_0, "state_g": STATE_G, "gt_actions": torch.ones(3, 4, 10)}
    return content | {"goal_H": 4} | changed


def write(path: Path, content: object, protocol: int | None = None) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [4, 5])
def test_dino_wms_targets_become_tasks_and_their_goal_h_overrides_ours(tmp_path: Path, protocol: int):
    tasks, goal_H = read_targets(write(tmp_path / "plan_targets.pkl", targets(), protocol), 7)
    np.testing.assert_array_equal(tasks.start, STATE_0)
    np.testing.assert_array_equal(tasks.goal, STATE_G)
    assert goal_H == 4


@pytest.mark.parametrize("odd", [np.asfortranarray(STATE_0), STATE_0.astype(">f4"), STATE_0.astype(np.float32)])
def test_states_of_any_float_type_and_order_are_read(tmp_path: Path, odd: np.ndarray):
    tasks, _ = read_targets(write(tmp_path / "plan_targets.pkl", targets(state_0=odd)), 7)
    np.testing.assert_array_equal(tasks.start, STATE_0)


def test_our_own_task_files_are_read(tmp_path: Path):
    drawn = load_or_make(
        tmp_path / "tasks.npz", lambda: sample_tasks(Maze("umaze"), 3, 5, skip_solved=False, goal_at_rest=True)
    )
    tasks, goal_H = read_targets(str(tmp_path / "tasks.npz"), 7)
    assert isinstance(tasks, Tasks) and tasks.hash == drawn.hash and goal_H == 7


class Evil:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path):
    path = write(tmp_path / "plan_targets.pkl", targets(gt_actions=Evil(tmp_path / "ran")))
    with pytest.raises(ValueError, match=r"plan_targets.pkl is refused, and nothing in it was run: it names .*system"):
        read_targets(path, 7)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_sets_nothing_of_what_reads_it(tmp_path: Path):
    path = tmp_path / "plan_targets.pkl"
    for name in (
        b"numpy._core.numeric\n_frombuffer",
        b"numpy.core.multiarray\n_reconstruct",
        b"numpy\ndtype",
        b"torch.x\ny",
    ):
        path.write_bytes(b"c" + name + b"\n}X\x05\x00\x00\x00stateK\x01sb.")  # the class itself, given {"state": 1}
        with pytest.raises(ValueError, match=r"plan_targets\.pkl is refused, and nothing in it was run"):
            read_targets(path, 7)


def test_a_pickle_that_numbers_more_objects_than_it_has_is_refused(tmp_path: Path):
    path = tmp_path / "plan_targets.pkl"
    path.write_bytes(b"}r\xff\xff\xff\x7f.")  # a dict kept as number 2**31 - 1, for which Python makes room
    with pytest.raises(ValueError, match=r"it numbers 2147483647 objects, more than the file has bytes"):
        read_targets(path, 7)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list instead of a dict"),
        ({"state_0": STATE_0}, "arrays state_0 and state_g, a number goal_H"),
        (targets(state_g=STATE_G[:, :2]), r"\(3, 4\) and \(3, 2\) instead of \(n, 4\)"),
        (targets(goal_H=0), r"goal_H \(0\) is not positive"),
        (targets(state_0=np.array([["x"]], object)), "not one of numbers"),
    ],
)
def test_files_that_hold_something_else_are_refused_by_name(tmp_path: Path, content: object, message: str):
    with pytest.raises(ValueError, match=message):
        read_targets(write(tmp_path / "plan_targets.pkl", content), 7)


def test_a_missing_or_truncated_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"needs protocol.goal_file=PATH"):
        read_targets(None, 7)
    with pytest.raises(FileNotFoundError, match=r"no task file .*gone.pkl"):
        read_targets(tmp_path / "gone.pkl", 7)
    path = write(tmp_path / "plan_targets.pkl", targets())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"plan_targets.pkl is refused"):
        read_targets(path, 7)
