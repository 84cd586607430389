"""Where the ball appears in a frame, that frames do not depend on their batch, and what happens without a GL library."""

import os
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from wmbench.envs import gl, rendering
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import build_model
from wmbench.envs.rendering import make_renderer, pixel_of
from wmbench.envs.vector import PointMazes


@pytest.fixture(params=["warp", "egl", "osmesa"])
def kind(request: pytest.FixtureRequest) -> str:
    """Every renderer that works here; Warp works everywhere."""
    if request.param != "warp" and gl.why_not(request.param):
        pytest.skip(f"no usable {request.param} on this machine")
    return request.param


def ball_centre(frame: np.ndarray) -> np.ndarray:
    """Mean (column, row) of the green pixels: wall and floor are never green."""
    red, green, blue = np.moveaxis(frame.astype(int), -1, 0)
    row, column = np.nonzero((green > red + 20) & (green > blue + 20))
    return np.array([column.mean(), row.mean()])


@pytest.mark.parametrize(
    ("position", "column_row"),
    [((0.8, 0.8), (83.7, 83.7)), ((2.8, 0.8), (139.3, 83.7)), ((0.8, 2.8), (83.7, 139.3)), ((2.8, 2.8), (139.3, 139.3))],
)
def test_the_ball_appears_at_dino_wms_pixel(kind: str, position: tuple, column_row: tuple):
    """Reference, sections 1.7 and 11: column grows with x, row with y."""
    renderer = make_renderer(kind, build_model(Maze("umaze")), 224)
    frame = renderer.frames(np.array([position]))[0]
    np.testing.assert_allclose(ball_centre(frame), column_row, rtol=0, atol=0.3)


@pytest.mark.parametrize("name", ["large", "open"])
def test_pixel_of_tells_where_the_ball_is_drawn_in_mazes_that_are_not_square(kind: str, name: str):
    maze, rng, size = Maze(name), np.random.RandomState(0), 256
    model = build_model(maze)
    position = np.stack([maze.sample_state(rng)[:2] for _ in range(6)])
    position = position[maze.clearance(position) > 0.25]  # nearer ones are half hidden by the wall
    drawn = np.stack([ball_centre(frame) for frame in make_renderer(kind, model, size).frames(position)])
    np.testing.assert_allclose(drawn, pixel_of(position, model, size), rtol=0, atol=0.3)


def test_pixel_of_is_dino_wms_mapping_in_the_umaze():
    """Reference, section 1.7: 111.5 + 27.776 (x + 1.2 - 3) at 224 pixels."""
    position = np.array([[0.4, 3.2], [1.8, 2.8], [3.2, 0.4]])
    expected = 111.5 + 27.776 * (position + 1.2 - 3)
    np.testing.assert_allclose(pixel_of(position, build_model(Maze("umaze")), 224), expected, rtol=0, atol=1e-2)


def test_colours_are_the_originals(kind: str):
    """Reference, section 1.7: wall tops (224, 163, 101) with slight shading, checker (25, 51, 76) and (51, 76, 102)."""
    frame = make_renderer(kind, build_model(Maze("umaze")), 224).frames(np.array([[0.8, 0.8]]))[0].astype(int)
    for name, colour, pixel in (
        ("wall", (224, 163, 101), frame[70, 112]),
        ("ball", (102, 194, 102), frame[84, 84]),
        ("dark floor", (25, 51, 76), frame[5, 10]),
        ("light floor", (51, 76, 102), frame[5, 55]),
    ):
        np.testing.assert_allclose(pixel, colour, rtol=0, atol=8, err_msg=name)


def test_renderers_differ_by_a_few_grey_levels_and_at_edges(kind: str):
    if kind == "warp":
        pytest.skip("Warp is what the others are compared with")
    model, position = build_model(Maze("umaze")), np.array([[0.8, 0.8], [2.0, 2.8], [3.0, 1.4]])
    theirs, warp = (make_renderer(k, model, 224).frames(position).astype(int) for k in (kind, "warp"))
    difference = np.abs(theirs - warp).max(axis=-1)
    assert np.quantile(difference, 0.9) <= 12


@pytest.mark.parametrize("batch", [1, 3, 9, 70])
def test_a_frame_is_the_same_alone_and_in_a_batch(kind: str, batch: int):
    renderer, rng = make_renderer(kind, build_model(Maze("umaze")), 32), np.random.RandomState(batch)
    position = np.stack([Maze("umaze").sample_state(rng)[:2] for _ in range(batch)])
    together = renderer.frames(position)
    assert together.shape == (batch, 32, 32, 3) and together.dtype == np.uint8
    alone = np.concatenate([renderer.frames(position[[b]]) for b in range(batch)])
    np.testing.assert_array_equal(together, alone)
    assert len(np.unique(together, axis=0)) == batch  # no two balls at one place


def test_no_frame_for_no_ball(kind: str):
    assert make_renderer(kind, build_model(Maze("umaze")), 24).frames(np.zeros((0, 2))).shape == (0, 24, 24, 3)


def test_renderers_of_two_mazes_and_sizes_do_not_disturb_each_other(kind: str):
    position = np.array([[0.8, 0.8], [2.8, 1.8]])
    settings = [(build_model(Maze("umaze")), 32), (build_model(Maze("open")), 48)]
    expected = [make_renderer(kind, *setting).frames(position) for setting in settings]
    first, second = (make_renderer(kind, *setting) for setting in settings)
    for _ in range(2):
        np.testing.assert_array_equal(first.frames(position), expected[0])
        np.testing.assert_array_equal(second.frames(position), expected[1])


def test_the_true_state_is_drawn_unless_the_lag_is_asked_for(kind: str):
    state = np.array([[0.8, 1.4, 5.0, -4.0], [1.6, 2.9, -5.0, 1.0], [3.0, 2.0, 0.0, 0.0]])
    true, lagged = (PointMazes(renderer=kind, image_size=96, render_lag=lag) for lag in (False, True))
    still = np.concatenate([state[:, :2], np.zeros((3, 2))], axis=1)
    earlier = np.concatenate([state[:, :2] - 0.01 * state[:, 2:], np.zeros((3, 2))], axis=1)
    np.testing.assert_array_equal(true.frames(state), true.frames(still))
    np.testing.assert_array_equal(lagged.frames(state), true.frames(earlier))
    changed = (lagged.frames(state) != true.frames(state)).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, [True, True, False])
    set_or_stepped = lagged.frames(state, was_set=np.array([True, False, True]))
    np.testing.assert_array_equal(set_or_stepped, [true.frames(state)[0], *lagged.frames(state)[1:]])
    np.testing.assert_array_equal(lagged.frames(state, was_set=True), true.frames(state))


def test_the_lag_is_where_mujocos_kinematics_stand_after_a_step():
    """The original draws what mj_step leaves behind: body positions from before the last integration."""
    model, rng = build_model(Maze("umaze")), np.random.RandomState(0)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = (0.8, 0.8), (-2.0, 4.0)
    for _ in range(100):
        data.ctrl[:] = rng.uniform(-1, 1, 2)
        mujoco.mj_step(model, data)
        stale = data.body("ball").xpos[:2] - model.body("ball").pos[:2]
        np.testing.assert_allclose(data.qpos - 0.01 * data.qvel, stale, rtol=0, atol=1e-12)


def test_drawing_leaves_the_states_alone():
    world = PointMazes(renderer="warp", image_size=16)
    world.set_state(np.array([[0.8, 0.8, 1.0, 2.0]]))
    world.frames(np.array([[2.8, 2.8, 0.0, 0.0], [0.9, 1.7, 0.0, 0.0]]))
    np.testing.assert_array_equal(world.state, [[0.8, 0.8, 1.0, 2.0]])


def works_only(*working: str):
    return lambda platform: None if platform in working else "no such library"


@pytest.mark.parametrize(
    ("working", "chosen"), [(("egl", "osmesa"), "egl"), (("egl",), "egl"), (("osmesa",), "osmesa"), ((), "warp")]
)
def test_auto_takes_egl_else_osmesa_else_warp(monkeypatch: pytest.MonkeyPatch, working: tuple, chosen: str):
    monkeypatch.setattr(gl, "why_not", works_only(*working))
    assert rendering.resolve("auto") == chosen


@pytest.mark.parametrize("missing", ["egl", "osmesa"])
def test_a_renderer_that_is_asked_for_and_missing_is_an_error_that_names_warp(monkeypatch: pytest.MonkeyPatch, missing: str):
    monkeypatch.setattr(gl, "why_not", works_only())
    with pytest.raises(ValueError, match=f"{missing}.*does not work on this machine.*warp"):
        make_renderer(missing, build_model(Maze("umaze")), 8)


def test_an_unknown_renderer_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown renderer 'vulkan'; known: auto, egl, osmesa, warp"):
        make_renderer("vulkan", build_model(Maze("umaze")), 8)


def test_a_gl_library_that_hangs_counts_as_missing(monkeypatch: pytest.MonkeyPatch):
    def hang(*args, timeout: float, **kwargs):
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(gl.subprocess, "run", hang)
    gl.why_not.cache_clear()
    try:
        assert rendering.resolve("auto") == "warp"
    finally:
        gl.why_not.cache_clear()


NO_GL = """
import sys

class NoGL:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("OpenGL", "glfw") or name in ("mujoco.egl", "mujoco.osmesa", "mujoco.glfw"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, NoGL())
"""

DRAW = """
import numpy as np
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import build_model
from wmbench.envs.rendering import make_renderer

renderer = make_renderer("auto", build_model(Maze("umaze")), 32)
np.save("frames.npy", renderer.frames(np.array([[0.8, 0.8], [2.8, 1.1]])))
print(renderer.name)
try:
    make_renderer("egl", build_model(Maze("umaze")), 32)
except ValueError as error:
    print(error)
"""


def test_a_machine_without_any_gl_library_draws_the_same_frames_with_warp(tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(NO_GL)  # every Python below imports it, those that try a context too
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", DRAW]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    name, error = found.stdout.splitlines()[-2:]
    assert name == "warp"
    assert "egl" in error and "warp needs none" in error
    here = make_renderer("warp", build_model(Maze("umaze")), 32).frames(np.array([[0.8, 0.8], [2.8, 1.1]]))
    np.testing.assert_array_equal(np.load(tmp_path / "frames.npy"), here)


def test_a_home_that_cannot_be_written_to_does_not_keep_warp_from_compiling(monkeypatch, capsys):
    monkeypatch.delenv("WARP_CACHE_PATH", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    rendering._kernel_folder.cache_clear()
    folder = rendering._kernel_folder()
    assert folder and Path(folder).is_dir()
    assert "WARP_CACHE_PATH=FOLDER keeps it" in capsys.readouterr().err
    rendering._kernel_folder.cache_clear()
    monkeypatch.setenv("WARP_CACHE_PATH", "/proc/nowhere")
    assert rendering._kernel_folder() is None  # what was asked for is taken as it is
    rendering._kernel_folder.cache_clear()


def test_looking_for_warp_again_leaves_it_the_place_of_its_kernels():
    for _ in range(2):
        _, wp = rendering._import_warp()
        assert wp.config.kernel_cache_dir is not None
