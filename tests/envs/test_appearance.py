"""Declared factors of appearance: their ranges, what they draw, and that they change pictures and nothing else."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from wmbench.envs import gl
from wmbench.envs.appearance import FACTORS, LEVELS, SENSOR, Appearance, presets
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import build_model
from wmbench.envs.point_maze import PointMaze
from wmbench.envs.rendering import make_renderer
from wmbench.envs.sensor import box_radius, spoil
from wmbench.envs.stage import BANKS, MAX_LEAN, Stage
from wmbench.envs.vector import PointMazes

SIZE = 48
STATE = np.array([[0.8, 0.8, 1.0, -2.0], [2.6, 0.7, 0.0, 3.0], [1.7, 2.8, 0.0, 0.0]])
DRAWER = "egl" if gl.why_not("egl") is None else "warp"


def values(text: str, episodes: int = 60, step: int = 0) -> dict[str, np.ndarray]:
    drawn = [Appearance.of(text).values_at(0, k, step) for k in range(episodes)]
    return {name: np.array([each[name] for each in drawn]) for name in drawn[0]}


@pytest.mark.parametrize(("level", "scale"), LEVELS.items())
def test_a_draw_lies_in_its_levels_range_and_outside_of_the_range_below(level: str, scale: float):
    k = list(LEVELS).index(level)
    for name, value in values(f"all {scale}").items():
        factor, deviation = FACTORS[name], np.abs(value - FACTORS[name].neutral)
        present = deviation[deviation > 0] if factor.chance < 1 else deviation
        below = factor.reach[k - 1] if k else 0.0
        assert present.max() <= factor.reach[k] + 1e-9, name
        assert present.min() >= min(below, factor.reach[k]) - 1e-9, name
        assert factor.is_signed == bool((value < factor.neutral).any()), name


def test_counts_are_whole_and_every_count_of_a_range_comes():
    for scale, clutter, distractors in ((0.05, {0, 1, 2, 3}, {0, 1}), (0.1, {4, 5, 6}, {2}), (0.2, {7, 8}, {2})):
        drawn = values(f"clutter+distractors {scale}")
        assert set(drawn["clutter"]) == clutter and set(drawn["distractors"]) == distractors


def test_the_reach_grows_with_the_scale_and_begins_at_nothing():
    for name, factor in FACTORS.items():
        reach = [factor.band(scale)[1] for scale in (1e-9, 0.02, 0.05, 0.07, 0.1, 0.15, 0.2)]
        assert reach[0] == pytest.approx(0, abs=1e-6) and reach == sorted(reach), name


def test_a_draw_depends_on_seed_and_episode_and_not_on_the_other_factors():
    alone, together = Appearance.of("ball_size 0.1"), Appearance.of("all 0.1")
    assert alone.draw(3, 5)["ball_size"] == together.draw(3, 5)["ball_size"]
    drawn = {together.draw(seed, episode)["ball_size"].at(0) for seed in range(4) for episode in range(4)}
    assert len(drawn) == 16


def test_a_factor_that_changes_stays_in_its_range_and_one_that_does_not_keeps_its_value():
    still, changing = Appearance.of("camera_tilt 0.1"), Appearance.of("camera_tilt 0.1 changing")
    course = np.array([[a.values_at(0, 7, step)["camera_tilt"] for step in range(0, 300, 3)] for a in (still, changing)])
    assert np.ptp(course[0]) == 0 and np.ptp(course[1]) > 4
    assert (np.abs(course) >= 4.5 - 1e-9).all() and (np.abs(course) <= 9 + 1e-9).all()


@pytest.mark.parametrize(
    "text",
    [
        "clean",
        "all 0.1",
        "textured 0.05 changing",
        "wall_colour+ball_size 0.123",
        "clean camera_tilt=12",
        "lit 0.2 blur=1.5",
    ],
)
def test_an_appearance_reads_what_it_writes(text: str):
    assert str(Appearance.of(text)) == text
    assert Appearance.of(Appearance.of(text)) == Appearance.of(text)


def test_a_configuration_says_the_same_as_its_text():
    settings = {"factors": ["ball_size", "wall_colour"], "scale": 0.1, "changing": True, "values": {"blur": 1}}
    assert str(Appearance.of(settings)) == "wall_colour+ball_size 0.1 changing blur=1"
    assert str(Appearance.of({"factors": [], "scale": 0.2, "changing": False, "values": {}})) == "clean"


def test_the_shipped_appearances_keep_their_meaning():
    """Data and runs name them: a factor more would be another appearance under the same name."""
    camera = ("camera_tilt", "camera_azimuth", "camera_roll", "camera_zoom")
    assert presets() == {
        "clean": (),
        "all": tuple(FACTORS),
        "cluttered": ("clutter", "background"),
        "distracted": ("distractors",),
        "lit": ("light_position", "light_diffuse", "side_light"),
        "textured": ("floor_texture", "wall_texture", "wall_colour"),
        "tilted": camera,
    }
    assert tuple(FACTORS)[-4:] == SENSOR


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("shiny", r"unknown factor of appearance 'shiny' .*appearances: clean, textured, .*factors: floor_texture, "),
        ({"ball_radius": 0.2}, r"'ball_radius' \(physics, such as the ball's own size, stay\).*ball_size"),
        ({"mass": 3}, "unknown factor of appearance 'mass'"),
        ("all 0.3", r"appearance.scale \(0.3\) must be above 0 and at most 0.2 \(training up to 0.05, near up to 0.1"),
        ("all 0", r"appearance.scale \(0.0\)"),
        ("all nan", r"appearance.scale \(nan\)"),
        ("all much", "'much' is no scale, no factor=value and not `changing`; such as 'all 0.1'"),
        ({"camera_roll": 90}, r"camera_roll \(90\) must be from -18 to 18: turn of the camera \[degrees\]"),
        ({"ball_size": 2}, r"ball_size \(2\) must be from 0.6 to 1.4: the drawn ball's radius"),
        ({"clutter": 2.5}, r"clutter \(2.5\) must be a whole number from 0 to 8"),
        ({"blur": "strong"}, r"blur \(strong\) must be from 0 to 2"),
        ({"factors": ["blur"], "changing": "no"}, r"appearance.changing \('no'\) must be true or false"),
        (
            {"factors": [], "values": 7},
            r"appearance.values \(7\) must be factors with their values, such as {camera_tilt: 12}",
        ),
        ({"factors": 3, "scale": 0.1}, r"appearance.factors \(3\) must be a list of names, such as \[ball_size,blur\]"),
        (3, r"appearance \(3\) must be a name \(clean, all, "),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_with_what_can(given: Any, message: str):
    with pytest.raises(ValueError, match=message) as refused:
        PointMazes(image_size=0, appearance=given)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def usual() -> np.ndarray:
    return make_renderer(DRAWER, build_model(Maze("umaze")), SIZE).frames(STATE[:, :2])


def test_clean_is_drawn_from_the_physics_own_model_as_ever(usual: np.ndarray):
    np.testing.assert_array_equal(PointMazes(renderer=DRAWER, image_size=SIZE).frames(STATE), usual)
    assert PointMazes(renderer=DRAWER, image_size=SIZE)._painter._ready(Appearance())[1] is None


def test_no_appearance_moves_a_ball():
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 3, 2))

    def play(appearance: str) -> np.ndarray:
        world = PointMazes(image_size=0, appearance=appearance, num_threads=1)
        world.set_state(STATE)
        states = []
        for action in actions:
            world.step(action)
            states.append(world.state)
        return np.stack(states)

    np.testing.assert_array_equal(play("all 0.2"), play("clean"))


def test_a_stage_without_factors_shows_the_usual_scene(usual: np.ndarray):
    stage = Stage(Maze("umaze"), Appearance())
    frames = make_renderer(DRAWER, stage.model, SIZE).frames(
        STATE[:, :2], stage.scenes(Appearance(), 0, np.arange(3), np.zeros(3, int))
    )
    difference = np.abs(frames.astype(int) - usual).max(-1)
    assert np.quantile(difference, 0.9) <= 2 and difference.max() <= 40


def test_every_factor_shows_and_more_so_further_out(usual: np.ndarray):
    world = PointMazes(renderer=DRAWER, image_size=SIZE)  # keeps the renderers that several factors share
    for name, factor in FACTORS.items():
        shown = []
        for value in (factor.neutral + share * (factor.limits[1] - factor.neutral) for share in (0.25, 1.0)):
            world.appearance = Appearance.of({name: max(1, round(value)) if factor.is_whole else value})
            frames = world.frames(STATE, episode=np.arange(3) + 1)
            shown.append(np.abs(frames.astype(int) - usual).mean())
            if name in BANKS:
                break  # patterns of another strength need another renderer
        assert 0 < shown[0] <= shown[-1], name


def test_a_frames_look_does_not_depend_on_its_batch():
    world = PointMazes(renderer=DRAWER, image_size=SIZE, appearance="all 0.1 changing")
    episode, step = np.array([4, 9, 4]), np.array([0, 30, 60])
    together = world.frames(STATE, episode=episode, step=step)
    other = PointMazes(renderer=DRAWER, image_size=SIZE, appearance="all 0.1 changing")
    alone = [other.frames(STATE[[b]], episode=episode[[b]], step=step[[b]])[0] for b in (2, 0, 1)]
    np.testing.assert_array_equal(together[[2, 0, 1]], alone)
    assert (world.frames(STATE, episode=episode + 1, step=step) != together).mean() > 0.5


def test_a_goal_has_the_look_of_its_episode_or_the_one_that_is_asked_for():
    same, clean = (
        PointMazes(renderer=DRAWER, image_size=SIZE, appearance="wall_colour 0.2", goal_appearance=goal)
        for goal in (None, "clean")
    )
    goals = same.frames(STATE, episode=2, is_goal=True)
    np.testing.assert_array_equal(goals, same.frames(STATE, episode=2))
    np.testing.assert_array_equal(
        clean.frames(STATE, episode=2, is_goal=True), PointMazes(renderer=DRAWER, image_size=SIZE).frames(STATE)
    )
    np.testing.assert_array_equal(clean.frames(STATE, episode=2), goals)


def test_the_camera_never_leans_by_more_than_twenty_degrees():
    stage, scene = Stage(Maze("umaze"), Appearance()), {}
    for tilt, azimuth in ((18.0, 18.0), (-18.0, 18.0), (9.0, 0.0)):
        scene = {name: usual.copy() for name, usual in stage._usual.items()}
        stage._aim(scene, {"camera_tilt": tilt, "camera_azimuth": azimuth})
        offset = scene["cam_pos"][0] - stage._usual["cam_pos"][0] * (1, 1, 0)
        lean = np.degrees(np.arccos(offset[2] / np.linalg.norm(offset)))
        assert lean == pytest.approx(min(np.hypot(tilt, azimuth), MAX_LEAN), abs=1e-6)


def test_distractors_roll_through_free_cells_and_their_speed_is_the_levels():
    maze = Maze("medium")
    stage = Stage(maze, Appearance.of("distractors 0.1"))
    scenes = stage.scenes(Appearance.of("distractors 0.1"), 0, np.zeros(300, int), np.arange(300))
    way = scenes["geom_pos"][:, stage._id("distractor 0"), :2]
    assert maze.is_free(way - 1.2).all()  # from world to qpos
    np.testing.assert_allclose(np.abs(np.diff(way, axis=0)).sum(1).max(), 1.0 * 0.05, rtol=1e-9)
    assert stage.model.geom("distractor 0").contype[0] == 0 == stage.model.geom("distractor 0").conaffinity[0]


def test_noise_has_its_deviation_and_a_patch_its_share_and_a_blur_its_width():
    grey = np.full((64, 64, 3), 120, np.uint8)
    noisy = spoil(grey, {"noise": 0.05}, 0, 1, 2).astype(float)
    assert noisy.std() == pytest.approx(0.05 * 255, rel=0.05) and noisy.mean() == pytest.approx(120, abs=0.5)
    assert (spoil(grey, {"noise": 0.05}, 0, 1, 3) != noisy).mean() > 0.5
    hidden = np.concatenate([(spoil(grey, {"patch": 0.2}, 0, k, 0) != 120).any(-1) for k in range(8)]).mean()
    assert hidden == pytest.approx(0.2, rel=0.1)
    for sd in (0.5, 2.0):
        assert ((2 * box_radius(sd) + 1) ** 2 - 1) / 12 == pytest.approx(sd**2)


@pytest.mark.skipif(DRAWER == "warp", reason="no GL to compare with")
def test_warp_and_gl_draw_the_same_looks():
    """Of fine patterns, which Warp does not smooth, only the blocks' means would agree."""
    appearance = "ball_colour+ball_size+light_diffuse+clutter+distractors+camera_tilt 0.2"
    theirs, warp = (
        PointMazes(renderer=kind, image_size=SIZE, appearance=appearance).frames(STATE[:1], episode=3).astype(float)
        for kind in (DRAWER, "warp")
    )
    blocks = np.abs((theirs - warp).reshape(SIZE // 4, 4, SIZE // 4, 4, 3).mean((1, 3)))
    assert np.quantile(blocks, 0.9) <= 12


def test_gymnasium_draws_an_appearance_by_seed_and_by_reset_and_never_moves_the_start():
    env: Any = gymnasium.make(
        "wmbench:wmbench/PointMaze-v0", renderer=DRAWER, image_size=SIZE, appearance="wall_colour 0.2"
    ).unwrapped
    clean = PointMaze(renderer=DRAWER, image_size=SIZE)
    first, info = env.reset(seed=4)
    np.testing.assert_array_equal(info["state"], clean.reset(seed=4)[1]["state"])
    np.testing.assert_array_equal(first["visual"], env.reset(seed=4)[0]["visual"])
    assert (first["visual"] != clean.reset(seed=4)[0]["visual"]).any()
    np.testing.assert_array_equal(
        env.reset(seed=4, options={"appearance": "clean"})[0]["visual"], clean.reset(seed=4)[0]["visual"]
    )
    np.testing.assert_array_equal(env.reset(seed=4)[0]["visual"], first["visual"])
    with pytest.raises(ValueError, match=r"camera_tilt \(30\) must be from -18 to 18"):
        env.reset(options={"appearance": {"camera_tilt": 30}})


def test_the_variation_space_holds_every_factor_and_a_sample_of_it_is_an_appearance():
    env = PointMaze(renderer="warp", image_size=8)
    assert set(env.variation_space) == set(FACTORS)
    env.variation_space.seed(0)
    for _ in range(20):
        sample = env.variation_space.sample()
        assert set(Appearance.of(sample).values) == set(FACTORS)


def test_a_draw_is_the_same_in_every_process_and_on_every_day():
    value = Appearance.of("ball_size+light_position 0.1 changing").values_at(7, 5, 11)
    assert value == pytest.approx({"ball_size": 0.8984041151, "light_position": 10.5863445904})
