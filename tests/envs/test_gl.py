"""GL beside what else a process does: torch.compile, forks, other projects' settings, other renderers."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from wmbench.envs import gl
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import build_model
from wmbench.envs.rendering import GLRenderer, make_renderer, resolve

needs_egl = pytest.mark.skipif(gl.why_not("egl") is not None, reason=f"no usable EGL: {gl.why_not('egl')}")


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, since it may crash, hang or fork."""
    command, changed = [sys.executable, "-W", "ignore", "-c", program], os.environ | environment
    return subprocess.run(command, env=changed, capture_output=True, text=True, timeout=300)


COMPILE = """
import gymnasium, torch
env = gymnasium.make("wmbench:wmbench/PointMaze-v0", image_size=16)
env.reset(seed=1)
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(())))
print(env.reset(seed=1)[0]["visual"].mean() > 0, env.unwrapped._world.renderer.name)
"""


@needs_egl
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_egl_and_torch_compile_live_in_one_process():
    """torch.compile imports triton, whose LLVM crashes where that of Mesa's EGL was loaded first."""
    done = run(COMPILE)
    assert (done.returncode, done.stdout.split()) == (0, ["tensor(2.)", "True", "egl"]), done.stderr


def test_a_driver_that_crashes_beside_triton_counts_as_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gl, "ATTEMPT", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)  # {platform}")
    gl.why_not.cache_clear()
    try:
        assert resolve("auto") == "warp"
        with pytest.raises(ValueError, match=r"'egl' does not work on this machine .*crashed with signal 11"):
            resolve("egl")
    finally:
        gl.why_not.cache_clear()


@pytest.mark.parametrize("chosen", ["osmesa", "egl", "glfw", "off", "nonsense", ""])
def test_another_projects_choice_of_gl_neither_stops_wmbench_nor_is_lost(chosen: str):
    done = run("import os, wmbench.envs.vector; print(repr(os.environ['MUJOCO_GL']))", MUJOCO_GL=chosen)
    assert (done.returncode, done.stdout.strip()) == (0, repr(chosen)), done.stderr


DRAW = """
import numpy as np
from wmbench.envs.vector import PointMazes
world = PointMazes(renderer="egl", image_size=16)
print(world.frames(np.array([[0.8, 0.8, 0, 0]])).sum())
"""


@needs_egl
@pytest.mark.parametrize(
    "others",
    [{"PYOPENGL_PLATFORM": "glx"}, {"PYOPENGL_PLATFORM": "osmesa"}, {"MUJOCO_GL": "osmesa"}, {"MUJOCO_GL": "x"}],
    ids=str,
)
def test_egl_draws_the_same_under_another_projects_settings(others: dict[str, str]):
    here = GLRenderer("egl", build_model(Maze("umaze")), 16).frames(np.array([[0.8, 0.8]]))
    done = run(DRAW, **others)
    assert (done.returncode, done.stdout.strip()) == (0, str(here.sum())), done.stderr


@needs_egl
@pytest.mark.parametrize("device", ["7", "-1", "abc"])
def test_a_refusal_of_egl_names_the_variable_that_caused_it(monkeypatch: pytest.MonkeyPatch, device: str):
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", device)
    gl.why_not.cache_clear()
    try:
        with pytest.raises(ValueError, match=rf"'egl' does not work.*MUJOCO_EGL_DEVICE_ID.*{device}.*warp needs none"):
            resolve("egl")
    finally:
        gl.why_not.cache_clear()


def test_auto_tells_why_it_leaves_out_the_egl_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "7")
    monkeypatch.setattr(gl, "why_not", lambda platform: "there is no device 7")
    with pytest.warns(UserWarning, match="renderer auto takes warp, as egl does not work: there is no device 7"):
        assert resolve("auto") == "warp"


@needs_egl
def test_a_renderer_that_is_gone_leaves_the_others_their_buffers():
    position = np.array([[0.8, 0.8]])
    other, kept = (GLRenderer("egl", build_model(Maze(name)), 32) for name in ("umaze", "large"))
    expected = kept.frames(position)
    del other
    np.testing.assert_array_equal(kept.frames(position), expected)


@needs_egl
@pytest.mark.parametrize("size", [1025, 1300])
def test_gl_fills_frames_larger_than_its_usual_buffer(size: int):
    frame = GLRenderer("egl", build_model(Maze("umaze")), size).frames(np.array([[0.8, 0.8]]))[0]
    assert (frame.max(-1) > 0).all()  # no colour of the scene is black


@needs_egl
def test_frames_larger_than_gl_can_draw_are_refused():
    with pytest.raises(ValueError, match=r"image_size \(100000\) .*egl can draw here.*lower it, or draw with warp"):
        make_renderer("egl", build_model(Maze("umaze")), 100_000)


FORK = """
import os, sys
import numpy as np
from wmbench.envs.vector import PointMazes

state = np.array([[0.8, 0.8, 0, 0]] * 3)
world = PointMazes(renderer="egl", image_size=8, num_threads=2)
world.set_state(state)
world.step(np.ones((3, 2)))
world.frames(state)
if os.fork():
    sys.exit(os.wait()[1])
world.step(np.ones((3, 2)))
for inherited_or_new in (world, PointMazes(renderer="egl", image_size=8), PointMazes(renderer="auto", image_size=8)):
    try:
        inherited_or_new.frames(state)
    except ValueError as error:
        print(error, flush=True)
os._exit(0)
"""


@needs_egl
def test_a_process_forked_from_one_that_drew_is_told_to_spawn():
    done = run(FORK)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and all("forked" in line and "context='spawn'" in line for line in lines)


def test_a_forked_process_steps_with_threads_of_its_own():
    program = (
        FORK.replace("world.frames(state)\n", "").partition("for inherited")[0] + "print(world.state[0, 0])\nos._exit(0)"
    )
    done = run(program)
    assert done.returncode == 0 and float(done.stdout) > 0.8, done.stderr


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("renderer", ["warp", pytest.param("egl", marks=needs_egl)])
def test_environments_in_processes_of_their_own_are_those_in_this_one(renderer: str, context: str):
    program = f"""
import gymnasium, numpy as np
make = lambda: gymnasium.make("wmbench:wmbench/PointMaze-v0", renderer={renderer!r}, image_size=8)
envs = gymnasium.vector.AsyncVectorEnv([make, make], context={context!r})
start, _ = envs.reset(seed=[1, 2])
after = envs.step(np.ones((2, 2), np.float32))[0]
envs.close()
for k, env in enumerate([make(), make()]):
    for expected, found in ((env.reset(seed=k + 1)[0], start), (env.step(np.ones(2, np.float32))[0], after)):
        np.testing.assert_array_equal(expected["visual"], found["visual"][k])
        np.testing.assert_array_equal(expected["proprio"], found["proprio"][k])
"""
    done = run(program)
    assert done.returncode == 0, done.stderr
