"""The gymnasium environment and the vector of mazes beneath it."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from wmbench.envs.point_maze import PointMaze
from wmbench.envs.rendering import check_image_size
from wmbench.envs.vector import PointMazes

CORRIDOR = ("###", "#.#", "#.#", "#.#", "#.#", "###")  # four free cells along x: the ball's centre moves in 0.4 to 4.2


@pytest.fixture
def env() -> PointMaze:
    return PointMaze(renderer="warp", image_size=16, render_mode="rgb_array")


def test_gymnasiums_checker_warns_of_nothing_but_the_unbounded_proprio():
    env = gymnasium.make("wmbench:wmbench/PointMaze-v0", renderer="warp", image_size=16, render_mode="rgb_array")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env.unwrapped)
    messages = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    unexpected = [m for m in messages if "A Box observation space" not in m or "infinity" not in m]
    assert not unexpected
    assert len(messages) == 2  # minimum and maximum


def test_gymnasium_makes_the_environment_by_its_id_and_stops_it_after_300_steps():
    env = gymnasium.make("wmbench:wmbench/PointMaze-v0", renderer="warp", image_size=8, maze="medium")
    assert isinstance(env.unwrapped, PointMaze) and env.unwrapped.maze.name == "medium"
    env.reset(seed=1)
    ends = [env.step(np.array([1.0, 0.5], np.float32))[2:4] for _ in range(300)]
    assert ends == [(False, False)] * 299 + [(False, True)]


@pytest.mark.parametrize(
    ("seed", "start", "goal"),
    [
        (1, (0.5003, 1.2861, -3.6923, -4.2611), (0.9843, 1.3985, -1.079, 0.4057)),
        (199, (2.2025, 3.0533, -1.0462, 3.5973), (3.0506, 1.1786, 4.5992, -4.7561)),
    ],
)
def test_reset_with_a_seed_gives_dino_wms_start_and_goal(env: PointMaze, seed: int, start: tuple, goal: tuple):
    """`sample_random_init_goal_states(seed)` to four decimals (reference, section 1.6)."""
    obs, info = env.reset(seed=seed)
    np.testing.assert_allclose(env.state, start, rtol=0, atol=5.1e-5)
    np.testing.assert_allclose(env.goal, goal, rtol=0, atol=5.1e-5)
    np.testing.assert_array_equal(obs["proprio"], env.state.astype(np.float32))
    np.testing.assert_array_equal(info["state"], env.state)
    np.testing.assert_array_equal(info["goal"], env.goal)


def test_resets_without_a_seed_go_on_from_the_seeded_one(env: PointMaze):
    def starts() -> list[np.ndarray]:
        env.reset(seed=5)
        return [env.reset()[1]["state"] for _ in range(3)]

    first, again = starts(), starts()
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first, axis=0)) == 3


def test_reset_options_place_the_ball_and_the_goal(env: PointMaze):
    state, goal = [0.9, 1.4, -0.5, 2.0], [2.9, 0.7, 0.0, 0.0]
    obs, info = env.reset(seed=3, options={"state": state, "goal": goal})
    np.testing.assert_array_equal(env.state, state)
    np.testing.assert_array_equal(env.goal, goal)
    np.testing.assert_array_equal(obs["proprio"], np.float32(state))
    np.testing.assert_array_equal(info["goal"], goal)


def test_one_reset_option_leaves_the_other_to_the_seed(env: PointMaze):
    env.reset(seed=3)
    start, goal = env.state, env.goal.copy()
    env.reset(seed=3, options={"goal": [2.9, 0.7, 0.0, 0.0]})
    np.testing.assert_array_equal(env.state, start)
    env.reset(seed=3, options={"state": [0.9, 1.4, -0.5, 2.0]})
    np.testing.assert_array_equal(env.goal, goal)


def test_an_unknown_reset_option_is_refused_with_the_known_ones(env: PointMaze):
    with pytest.raises(ValueError, match=r"unknown reset options \['goal_cell'\]; known: state, goal, appearance"):
        env.reset(options={"goal_cell": (1, 1), "goal": [0.9, 1.4, 0, 0]})


def test_the_state_is_what_was_set_to_the_last_digit(env: PointMaze):
    env.reset(seed=0)
    state = np.array([0.8 + 1e-15, 1.1, 1 / 3, -5.2262554])
    env.set_state(state)
    np.testing.assert_array_equal(env.state, state)
    env.state[:] = 0  # a copy
    np.testing.assert_array_equal(env.state, state)


def test_the_same_actions_from_a_seed_give_the_same_states_and_frames(env: PointMaze):
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 2)).astype(np.float32)

    def play() -> tuple[list, list]:
        observations = [env.reset(seed=8)[0], *(env.step(action)[0] for action in actions)]
        return [o["proprio"] for o in observations], [o["visual"] for o in observations]

    (first_states, first_frames), (states, frames) = play(), play()
    np.testing.assert_array_equal(states, first_states)
    np.testing.assert_array_equal(frames, first_frames)


def test_render_gives_the_observed_frame_and_only_in_its_mode(env: PointMaze):
    env.reset(seed=2)
    visual = env.step(np.array([0.3, -0.4], np.float32))[0]["visual"]
    np.testing.assert_array_equal(env.render(), visual)
    silent = PointMaze(renderer="warp", image_size=16)
    silent.reset(seed=2)
    assert silent.render() is None


@pytest.mark.parametrize(
    ("action", "axis", "wall"), [((-1, 0), 0, 0.4), ((1, 0), 0, 4.2), ((0, -1), 1, 0.4), ((0, 1), 1, 1.2)]
)
def test_walls_stop_the_ball_at_its_radius(action: tuple, axis: int, wall: float):
    env = PointMaze(CORRIDOR, renderer="warp", image_size=8)
    env.reset(seed=0, options={"state": [1.8, 0.8, 0, 0]})
    along = []
    for _ in range(120):
        env.step(np.array(action, np.float32))
        along.append(env.state[axis])
    assert min(abs(np.array(along) - wall)) < 0.07
    np.testing.assert_allclose(env.state[axis], wall, rtol=0, atol=0.003)  # at rest, within the contact margin
    np.testing.assert_allclose(env.state[2:], 0, atol=1e-3)
    assert max((np.array(along) - wall) * np.sign(sum(action))) < 0.07  # never further in than a soft contact gives


def test_a_custom_map_decides_starts_walls_and_paths():
    env = PointMaze(list(CORRIDOR), renderer="warp", image_size=8)
    starts = np.stack([env.reset(seed=seed)[1]["state"] for seed in range(60)])
    assert starts[:, 0].min() < 1 and starts[:, 0].max() > 3.5
    assert starts[:, 1].min() >= 0.5 and starts[:, 1].max() <= 1.1
    assert env.geodesic([0.6, 0.8], [4.1, 0.8]) == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("x", "reached"), [(1.5, False), (np.nextafter(1.5, 0), True), (0.5, False), (np.nextafter(0.5, 1), True), (1.0, True)]
)
def test_reward_and_success_are_strictly_within_half_a_metre(env: PointMaze, x: float, reached: bool):
    _, info = env.reset(options={"state": [x, 2.8, 0, 0], "goal": [1.0, 2.8, 3.0, -3.0]})
    assert env.is_success() is reached and info["is_success"] is reached
    _, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))  # at rest without a push: it stays
    np.testing.assert_array_equal(env.state, [x, 2.8, 0, 0])
    assert isinstance(reward, float) and reward == float(reached)
    assert info["is_success"] is reached
    assert not terminated and not truncated


def test_copies_side_by_side_are_single_environments():
    singles = [PointMaze(renderer="warp", image_size=24) for _ in range(5)]
    for seed, single in enumerate(singles):
        single.reset(seed=seed)
    world = PointMazes(renderer="warp", image_size=24, num_threads=2)
    world.set_state(np.stack([single.state for single in singles]))
    rng = np.random.default_rng(0)
    for _ in range(12):
        actions = rng.uniform(-1, 1, (5, 2))
        observations = [single.step(action)[0] for single, action in zip(singles, actions, strict=True)]
        world.step(actions)
        np.testing.assert_array_equal(world.state, [single.state for single in singles])
        np.testing.assert_array_equal(world.frames(world.state), [o["visual"] for o in observations])


def test_balls_that_are_not_stepped_stand_still():
    world = PointMazes(renderer="warp", image_size=8)
    state = np.array([[0.8, 0.8, 1, 1], [1.8, 2.8, -2, 0], [2.8, 0.8, 0, 3]], float)
    actions = np.array([[1.0, 0.5], [-0.5, 0.2]])
    world.set_state(state)
    world.step(actions, np.array([2, 0]))
    stepped = world.state.copy()
    np.testing.assert_array_equal(stepped[1], state[1])
    world.set_state(state[[2, 0]])
    world.step(actions)
    np.testing.assert_array_equal(stepped[[2, 0]], world.state)


def test_setting_states_copies_them():
    world, state = PointMazes(renderer="warp", image_size=8), np.array([[0.8, 0.8, 1.0, 1.0]])
    world.set_state(state)
    world.step(np.ones((1, 2)))
    np.testing.assert_array_equal(state, [[0.8, 0.8, 1.0, 1.0]])


@pytest.mark.parametrize(
    "use",
    [lambda env: env.step([0, 0]), lambda env: env.render(), lambda env: env.is_success(), lambda env: env.state],
    ids=["step", "render", "is_success", "state"],
)
def test_what_needs_a_state_says_so_before_reset_and_after_close(env: PointMaze, use: Callable[[PointMaze], object]):
    with pytest.raises(ResetNeeded, match=r"call reset\(\) before step"):
        use(env)
    env.reset(seed=1)
    use(env)
    env.close()
    env.close()
    with pytest.raises(ResetNeeded, match="after close"):
        use(env)
    env.reset(seed=1)
    use(env)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "action", [[NAN, 0], [0, INF], [0.5], [0, 0, 0], 0.5, None, "up", [[0, 0]], {"x": 1}, [1, [2]]], ids=repr
)
def test_an_action_that_is_not_two_finite_numbers_is_refused_and_changes_nothing(env: PointMaze, action: Any):
    env.reset(seed=1)
    before = env.state
    with pytest.raises(ValueError, match="action must be 2 finite numbers, not "):
        env.step(action)
    np.testing.assert_array_equal(env.state, before)


@pytest.mark.parametrize("state", [[NAN, 1, 0, 0], [1, 1, 0, -INF], [1, 1], None, [[1, 1, 0, 0]]], ids=repr)
@pytest.mark.parametrize("name", ["state", "goal"])
def test_a_state_or_goal_that_is_not_four_finite_numbers_is_refused(env: PointMaze, name: str, state: Any):
    env.reset(seed=1)
    before = env.state, env.goal
    with pytest.raises(ValueError, match=f"{name} must be 4 finite numbers, not "):
        env.reset(options={name: state})
    np.testing.assert_array_equal((env.state, env.goal), before)


@pytest.mark.parametrize("position", [(1.8, 1.0), (-0.4, 0.8), (9.0, 9.0), (-50.0, 0.8)], ids=str)
def test_a_ball_cannot_be_put_into_a_wall_or_outside_the_maze(env: PointMaze, position: tuple):
    with pytest.raises(ValueError, match=r"must lie in a free cell"):
        env.reset(options={"state": [*position, 0, 0]})


def test_a_ball_may_lean_on_a_wall(env: PointMaze):
    env.reset(options={"state": [0.31, 0.8, 0, 0]})
    assert env.step([0, 0])[4]["state"][0] > 0.31  # the contact pushes it out


@pytest.mark.parametrize("size", [0, -3, 2.5, "64", None, True], ids=repr)
def test_frames_of_no_size_are_refused(size: Any):
    with pytest.raises(ValueError, match=r"image_size \(.*\) must be a whole number of pixels, 1 or more"):
        check_image_size(size, least=1)


def test_a_world_that_draws_nothing_has_no_size_and_an_environment_always_has_one():
    assert PointMazes(image_size=0).frames(np.zeros((3, 4))).shape == (3, 0, 0, 3)
    for world, size in ((PointMazes, -1), (PointMaze, 0)):
        with pytest.raises(ValueError, match=rf"image_size \({size}\)"):
            world(image_size=size)


def test_frames_may_have_any_size_from_one_pixel_on():
    for size in (1, 7, 33):
        assert PointMaze(renderer="warp", image_size=size).reset(seed=1)[0]["visual"].shape == (size, size, 3)


@pytest.mark.parametrize(
    ("states", "actions", "message"),
    [
        (np.zeros((0, 4)), np.zeros((1, 2)), "0 states cannot be stepped by 1 actions; set the states first"),
        (np.ones((2, 4)), np.zeros((3, 2)), "2 states cannot be stepped by 3 actions"),
        (np.ones((2, 4)), np.array([[0, 0], [0, NAN]]), r"actions must be finite, and number 1 is \[0.0, nan\]"),
        (np.ones((2, 4)), np.zeros((2, 3)), r"actions must be \(B, 2\), not \(2, 3\)"),
    ],
)
def test_balls_side_by_side_are_checked_before_they_move(states: np.ndarray, actions: np.ndarray, message: str):
    world = PointMazes(image_size=0)
    world.set_state(states)
    with pytest.raises(ValueError, match=message):
        world.step.__wrapped__(world, actions)


def test_no_balls_are_stepped_without_one():
    world = PointMazes(image_size=0)
    world.set_state(np.zeros((0, 4)))
    world.step(np.zeros((0, 2)))
    assert world.state.shape == (0, 4)


def test_refused_numbers_leave_no_log_of_mujocos_behind(env: PointMaze, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    env.reset(seed=1)
    for refused in ([NAN, 0], [INF, 0]):
        with pytest.raises(ValueError, match="finite"):
            env.step(refused)
    assert not list(tmp_path.iterdir())
