"""Tasks: the original's fifty, the skipped ones, and files that keep them."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from in_process import compose

from wmbench.commands.players import load_tasks, make_baseline
from wmbench.data import episodes as storage
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import Physics
from wmbench.evaluation.tasks import Tasks, load, load_or_make, make_tasks, replay_tasks, sample_tasks, task_file


@pytest.fixture
def maze() -> Maze:
    return Maze("umaze")


@pytest.fixture
def originals(maze: Maze) -> Tasks:
    return sample_tasks(maze, 50, 99, skip_solved=False, goal_at_rest=False)


def kept(folder: Path, maze: Maze, **settings) -> Tasks:
    return load_or_make(task_file(folder, maze, **settings), lambda: sample_tasks(maze, **settings))


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


def test_a_start_at_rest_differs_in_its_velocity_alone(maze: Maze, originals: Tasks):
    resting = sample_tasks(maze, 50, 99, skip_solved=False, goal_at_rest=False, start_at_rest=True)
    np.testing.assert_array_equal(resting.start[:, :2], originals.start[:, :2])
    np.testing.assert_array_equal(resting.goal, originals.goal)
    assert originals.start[:, 2:].all() and not resting.start[:, 2:].any() and not np.signbit(resting.start[:, 2:]).any()


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
    again = load_or_make(task_file(tmp_path / "tasks", maze, **settings), lambda: pytest.fail("sampled twice"))
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
        {"start_at_rest": True},
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


def replay(episodes: storage.EpisodeSet, physics: Physics, num_tasks: int, num_steps: int, **changed) -> Tasks:
    settings = {"random_actions": False, "skip_solved": False, "goal_at_rest": False} | changed
    return replay_tasks(episodes, episodes.split()[1], physics, num_tasks, 7, num_steps, **settings)


def test_replayed_goals_are_the_recorded_states_some_steps_later(recorded: storage.Episodes, physics: Physics):
    tasks = replay(recorded, physics, 12, 5)
    assert (
        np.isin(tasks.seeds // 8, recorded.split()[1]).all() and (tasks.seeds % 8 <= 2).all()
    )  # five steps later is in them
    assert len(set(tasks.seeds % 8)) == 3 and len(set(tasks.seeds // 8)) == 4
    np.testing.assert_array_equal(tasks.start, recorded.state[tasks.seeds].astype(float))
    np.testing.assert_allclose(tasks.goal, recorded.state[tasks.seeds + 5], atol=1e-5)


def test_no_start_is_replayed_twice(recorded: storage.Episodes, physics: Physics):
    """Four episodes of eight steps hold twelve segments of five: as many tasks, and not one more."""
    assert len(set(replay(recorded, physics, 12, 5).seeds)) == 12
    with pytest.raises(ValueError, match=r"13 tasks are more than the 12 starts .*the 4 validation episodes in .*n_evals"):
        replay(recorded, physics, 13, 5)


def test_random_actions_start_where_replayed_ones_do_and_end_elsewhere(recorded: storage.Episodes, physics: Physics):
    replayed = replay(recorded, physics, 12, 5)
    other = replay(recorded, physics, 12, 5, random_actions=True)
    np.testing.assert_array_equal(other.start, replayed.start)
    assert (np.abs(other.goal - replayed.goal).max(1) > 1e-3).all()
    assert other.hash == replay(recorded, physics, 12, 5, random_actions=True).hash


def test_a_replayed_start_at_rest_leads_to_another_goal(recorded: storage.Episodes, physics: Physics):
    moving, resting = (replay(recorded, physics, 12, 5, start_at_rest=at_rest) for at_rest in (False, True))
    np.testing.assert_array_equal(resting.start[:, :2], moving.start[:, :2])
    assert not resting.start[:, 2:].any()
    actions = np.stack([recorded.action[row : row + 5] for row in resting.seeds])
    np.testing.assert_array_equal(resting.goal, physics.rollout(resting.start, actions)[:, -1])


def test_segments_longer_than_every_episode_are_refused(recorded: storage.Episodes, physics: Physics):
    with pytest.raises(ValueError, match=r"recorded.h5 has no validation episode with the 9 steps of a task"):
        replay(recorded, physics, 3, 8)


def test_segments_without_a_step_are_refused(recorded: storage.Episodes, physics: Physics):
    with pytest.raises(ValueError, match=r"goal 0 env steps after its start is none; protocol.goal_H must be positive"):
        replay(recorded, physics, 3, 0)


def test_episodes_of_another_maze_are_refused(recorded: storage.Episodes, physics: Physics):
    recorded.manifest["maze"] = ["#####", "#...#", "#####"]
    with pytest.raises(ValueError, match=r"recorded.h5 was recorded in another maze, \['#####', '#...#', '#####'\]"):
        replay(recorded, physics, 3, 5)


def test_goals_that_cannot_be_found_are_given_up_on(recorded: storage.Episodes, physics: Physics):
    """One step from its start a ball is always within the success radius of where it was."""
    with pytest.raises(ValueError, match="not solved at their start; set skip_solved=false"):
        replay(recorded, physics, 1, 1, skip_solved=True)


REPLAYED = {"num_tasks": 20, "seed": 9, "skip_solved": False, "goal_at_rest": False, "num_steps": 5}


@pytest.mark.parametrize("goal_source", ["dset", "random_action"])
@pytest.mark.parametrize(("train_fraction", "split_seed"), [(0.5, 7), (0.8, 42)])
def test_replayed_tasks_start_in_episodes_that_the_run_was_not_trained_on(
    recorded: storage.Episodes, physics: Physics, tmp_path: Path, goal_source: str, train_fraction: float, split_seed: int
):
    split = {"train_fraction": train_fraction, "split_seed": split_seed}
    tasks = make_tasks(tmp_path / "tasks", physics, goal_source=goal_source, data=recorded.path, **REPLAYED, **split)
    trained_on, unseen = recorded.split(train_fraction, split_seed)
    assert not np.isin(tasks.seeds // 8, trained_on).any()
    assert np.isin(tasks.seeds // 8, unseen).all()


def test_replayed_tasks_of_other_splits_and_lengths_are_kept_apart(
    recorded: storage.Episodes, physics: Physics, tmp_path: Path
):
    settings = REPLAYED | {"goal_source": "dset", "data": recorded.path, "train_fraction": 0.5, "split_seed": 7}
    changes = [{}, {"train_fraction": 0.75}, {"split_seed": 8}, {"goal_source": "random_action"}, {"num_steps": 4}]
    hashes = {make_tasks(tmp_path / "tasks", physics, **settings | change).hash for change in changes}
    assert len(hashes) == len(list((tmp_path / "tasks").iterdir())) == len(changes)


def test_a_run_that_was_trained_on_every_episode_has_none_to_replay(
    recorded: storage.Episodes, physics: Physics, tmp_path: Path
):
    with pytest.raises(ValueError, match=r"all 40 episodes were trained on; give others: env.data=PATH"):
        make_tasks(tmp_path, physics, goal_source="dset", data=recorded.path, train_fraction=1.0, split_seed=42, **REPLAYED)


def test_episodes_that_have_become_others_are_replayed_only_where_they_are_named(recorded: storage.Episodes, tmp_path: Path):
    words = f"model_name=tiny tasks_dir={tmp_path} protocol.goal_source=dset protocol.goal_H=1 protocol.num_tasks=3"
    player = make_baseline(compose("plan", words), "random", "umaze", 5)

    def tasks_of(data_hash: str, more: str = "") -> str:
        row = replace(player.row, data=str(recorded.path), data_hash=data_hash)
        return load_tasks(compose("plan", words + more), replace(player, row=row)).hash

    own = tasks_of(recorded.hash[:12])
    with pytest.raises(ValueError, match=rf"hash {recorded.hash[:12]}\) is not what the run .* \(0123\), .*: env.data=PATH"):
        tasks_of("0123")
    assert tasks_of("0123", f" env.data={recorded.path}") == own


TWO_ROOMS = ("#######", "#..#..#", "#..#..#", "#######")


@pytest.mark.parametrize("skip_solved", [True, False])
def test_goals_without_a_path_to_them_are_left_out(skip_solved: bool):
    rooms = Maze(TWO_ROOMS)
    tasks = sample_tasks(rooms, 20, 99, skip_solved=skip_solved, goal_at_rest=True)
    in_left_room = tasks.start[:, 1] < 2.5
    assert 3 <= in_left_room.sum() <= 17
    np.testing.assert_array_equal(tasks.goal[:, 1] < 2.5, in_left_room)


def test_replayed_goals_in_another_room_are_given_up_on(recorded: storage.Episodes):
    """States recorded in the U-maze, of which some lie in the other maze's walls."""
    one_cell = Physics(Maze(("#####", "#####", "##.##", "#####", "#####")), num_threads=1)
    with pytest.raises(ValueError, match=r"only \d+ of 12 starts and goals have a path between them; lower protocol"):
        replay(recorded, one_cell, 12, 5)


def write_tasks(folder: str, maze: Maze) -> str:
    return kept(Path(folder), maze, num_tasks=3, seed=5, skip_solved=True, goal_at_rest=True).hash


def test_processes_that_sample_the_same_tasks_at_once_all_get_them(maze: Maze, tmp_path: Path):
    with ProcessPoolExecutor(4, get_context("fork")) as pool:
        for turn in range(15):
            folder = str(tmp_path / str(turn))
            assert len(set(pool.map(write_tasks, [folder] * 4, [maze] * 4))) == 1
            assert len(list(Path(folder).iterdir())) == 1


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            np.array([[0.8, 0.8, 0, 0], [0.8, np.nan, 0, 0]]),
            r"the start of task 1 is \[0.8, nan, 0.0, 0.0\]; it must be fin",
        ),
        (np.zeros((2, 2)), r"states are \(2, 2\) and \(2, 4\) instead of \(n, 4\)"),
        (np.zeros((1, 4)), r"states are \(1, 4\) and \(2, 4\) instead of \(n, 4\)"),
    ],
)
def test_a_file_of_impossible_states_is_refused_by_name(tmp_path: Path, start: np.ndarray, message: str):
    np.savez(tmp_path / "mine.npz", start=start, goal=np.zeros((2, 4)), seeds=np.arange(2))
    with pytest.raises(ValueError, match=f"mine.npz: {message}"):
        load(tmp_path / "mine.npz")
