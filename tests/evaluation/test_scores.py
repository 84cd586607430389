"""Scores of whole paths: known paths, known answers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wmbench.envs.mazes import Maze
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.conditions import Conditions
from wmbench.evaluation.episode_loop import Outcome, Rules, run_episodes
from wmbench.evaluation.results import Result, Score, read_summary, save_result
from wmbench.evaluation.row import Row
from wmbench.evaluation.scores import NAMES, score_paths, summarise
from wmbench.evaluation.tasks import Tasks, sample_tasks
from wmbench.planning.agent import Agent
from wmbench.planning.cem import CEM
from wmbench.planning.objective import Objective
from wmbench.planning.simulator import SimulatorModel


def path_of(*distances: float) -> np.ndarray:
    """One path along x towards a goal at 0."""
    states = np.zeros((1, len(distances), 4))
    states[0, :, 0] = distances
    return states


def scores_of(states: np.ndarray, geodesic: float = 2.0, short_steps: int = 4) -> dict[str, float]:
    columns = score_paths(states, np.zeros((len(states), 4)), np.full(len(states), geodesic), short_steps)
    return {name: float(values[0]) for name, values in columns.items()}


def test_a_ball_that_touches_and_leaves_has_touched_but_not_held():
    touches = path_of(2, 2, 2, 2, 1, 1, 1, 0.2, 1, 1)  # at step 7
    scores = scores_of(touches, short_steps=7)
    assert (scores["success_short"], scores["success_0.25"], scores["success_0.1"], scores["held"]) == (1, 1, 0, 0)
    assert scores_of(touches, short_steps=6)["success_short"] == 0
    assert scores_of(touches[:, :8])["held"] == 1, "the last env step is the one that counts"


def test_a_straight_way_has_spl_1_a_doubled_one_half_and_none_without_a_touch():
    straight, doubled, none = path_of(2, 1, 0), path_of(2, 3, 2, 1, 0), path_of(2, 1, 0.5)
    assert scores_of(straight)["spl"] == 1
    assert scores_of(doubled)["spl"] == 0.5
    assert scores_of(none)["spl"] == 0


def test_what_the_ball_rolls_after_its_touch_does_not_count_as_a_detour():
    assert scores_of(path_of(2, 1, 0.4, 3, 0.4))["spl"] == 1


def test_a_start_within_the_radius_is_no_touch():
    assert scores_of(path_of(0.05, 1, 1), geodesic=0.05)["success_0.1"] == 0


def test_intervals_hold_their_means_and_are_none_for_one_task():
    columns = {"held": np.array([True, False, True]), "spl": np.array([1.0, 0.0, 0.9]), "steps": np.array([3, 10, 5])}
    found = summarise(columns)
    assert found["held_low"] == pytest.approx(0.2077, abs=1e-4)  # Wilson's, of 2 in 3
    assert found["steps_low"] == pytest.approx(6 - 8.957, abs=1e-3) or found["steps_low"] == 0
    assert found["steps_high"] == pytest.approx(6 + 8.957, abs=1e-3)  # t(0.975, 2) = 4.303, s = 3.606
    assert (found["spl_low"], found["spl_high"]) == (0, 1)
    assert summarise({"spl": np.array([0.5])}) == {"spl": 0.5, "spl_low": None, "spl_high": None}


MAZE = Maze("umaze")
TASKS = Tasks(np.full((2, 4), 1.0), np.full((2, 4), 2.0), np.arange(2), np.array([1, 0]))
OUTCOME = Outcome(np.ones((2, 5, 4)), np.array([True, False]), np.array([3, 4]), np.array([0.4, 0.6]), 0.25, 0.5)
SCORES = score_paths(OUTCOME.states, TASKS.goal, np.ones(2), 2)


def test_a_result_with_scores_is_read_as_it_was_written_and_one_without_them_as_ever(tmp_path: Path):
    conditions = Conditions(list(MAZE.rows), 5, TASKS.hash, {"name": "bench"}, max_steps=10, seed=0)
    for name, scores in (("bench", SCORES), ("demo", None)):
        result = Result(Row("a"), conditions, Score.of(OUTCOME, 9.0, scores))
        save_result(tmp_path / name, result, TASKS, OUTCOME, MAZE, scores)
        assert Result.of(read_summary(tmp_path / name)) == replace(result, folder=str(tmp_path / name))
    summary, older = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("bench", "demo"))
    assert set(NAMES) | {"success", "success_low", "success_high"} <= set(summary) and "held" not in older
    header = (tmp_path / "bench" / "tasks.csv").read_text().splitlines()[0].split(",")
    assert {"stratum", "success_0.25", "success_0.1", "held", "spl", "success_short"} <= set(header)


@pytest.fixture(scope="module")
def env() -> PointMazes:
    return PointMazes("umaze", image_size=0, num_threads=1)


def play(env: PointMazes, tasks: Tasks, memory_gb: float = 1.0) -> Outcome:
    planner = CEM(num_samples=16, num_elites=4, num_iters=2, init_std=1.0)
    settings = {"horizon": 4, "num_taken": 2, "shrinking": True, "num_context": 3, "clip_actions": True}
    agent = Agent(SimulatorModel(env.physics, 5), planner, Objective(), **settings, memory_gb=memory_gb, seed=3)
    rules = Rules(5, 40, 10, "every_step", coast=False, play_on=True, short_steps=20)
    return run_episodes(agent, env, tasks, rules, torch.device("cpu"))


@pytest.fixture(scope="module")
def tasks(env: PointMazes) -> Tasks:
    return sample_tasks(env.maze, 4, 5, skip_solved=True, goal_at_rest=True, start_at_rest=True)


@pytest.fixture(scope="module")
def played(env: PointMazes, tasks: Tasks) -> Outcome:
    return play(env, tasks)


def test_a_solved_task_is_planned_for_to_the_end_and_its_success_stays(tasks: Tasks, played: Outcome):
    assert played.states.shape == (4, 41, 4)
    near = np.linalg.norm(played.states[:, 1:, :2] - tasks.goal[:, None, :2], axis=-1) < 0.5
    np.testing.assert_array_equal(played.success, near.any(1))
    np.testing.assert_array_equal(played.steps, np.where(near.any(1), near.argmax(1) + 1, 40))
    assert played.success.sum() >= 3 and near[:, -1].sum() >= 3, "plans towards the last deadline bring balls back"
    pushes = np.abs(np.diff(played.states[:, 21:, 2:], axis=1)).max((1, 2))
    assert (pushes > 0.5).all(), "balls are pushed after their touch [m/s]"


def test_a_task_alone_ends_as_in_a_batch_and_memory_changes_nothing(env: PointMazes, tasks: Tasks, played: Outcome):
    np.testing.assert_array_equal(play(env, tasks, memory_gb=1e-6).states, played.states)
    first = Tasks(tasks.start[:1], tasks.goal[:1], tasks.seeds[:1])
    np.testing.assert_array_equal(play(env, first).states[0], played.states[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_steps": None}, "it needs protocol.max_steps, check=every_step and coast=false"),
        ({"coast": True}, "it needs protocol.max_steps, check=every_step and coast=false"),
        ({"check": "last_step"}, "it needs protocol.max_steps, check=every_step and coast=false"),
        ({"short_steps": 45}, r"protocol.short_steps \(45\) must be from 1 to max_steps \(40\)"),
    ],
)
def test_rules_that_contradict_one_another_are_refused(changed: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Rules(
            **{"frameskip": 5, "max_steps": 40, "round_steps": 10, "check": "every_step", "coast": False, "play_on": True}
            | changed
        )
