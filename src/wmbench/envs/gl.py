"""GL contexts that need no display: which kinds work here, and how to make one that does not disturb the process.

Three things are known to go wrong, all of them in the process and not in the picture:
- torch.compile loads triton, which brings its own LLVM. Loaded behind that of a GL driver it crashes, before it both work.
- PyOpenGL remembers a failed attempt, and MuJoCo refuses EGL where PYOPENGL_PLATFORM was set for another program.
- A forked process inherits a driver without the driver's threads, and waits for them for ever.
"""

import contextlib
import functools
import logging
import os
import subprocess
import sys
from typing import Any

PLATFORMS = ("egl", "osmesa")
PATIENCE_S = 60  # with a trial on an idle machine, where it takes one or two

ATTEMPT = """
import contextlib
import mujoco
from wmbench.envs.gl import make_context
context = make_context({platform!r}, 8)
scene = mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100.value)
with contextlib.suppress(Exception):  # no triton, or another one; what counts is a crash
    from triton._C.libtriton import llvm
    llvm.init_targets()
"""

_forked_from_gl = False


def _after_fork() -> None:
    global _forked_from_gl
    egl, osmesa = (sys.modules.get(f"mujoco.{platform}") for platform in PLATFORMS)
    _forked_from_gl |= osmesa is not None or getattr(egl, "EGL_DISPLAY", None) is not None


os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def why_not(platform: str) -> str | None:
    """Why no GL context can be made, None where one can; tried in a process of its own, triton's LLVM included."""
    search = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    command = [sys.executable, "-c", ATTEMPT.format(platform=platform)]
    patience = PATIENCE_S * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))  # on a busy machine everything takes longer
    try:
        tried = subprocess.run(
            command,
            env=environment | {"PYTHONPATH": search},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        return f"it did not answer within {patience:.0f} s"
    if tried.returncode == 0:
        return None
    if tried.returncode < 0:
        return f"it crashed with signal {-tried.returncode}"
    reason = (tried.stderr.strip().splitlines() or ["it gave no reason"])[-1]
    if "NoneType" in reason:
        return "PyOpenGL finds none"
    device = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    return reason if device is None or "DEVICE_ID" in reason else f"{reason}; MUJOCO_EGL_DEVICE_ID is {device!r}"


def make_context(platform: str, size: int) -> Any:
    """MuJoCo's GLContext over EGL or OSMesa, made current."""
    check_fork()
    with contextlib.suppress(Exception):  # one that cannot be imported now will not be loaded later either
        import triton  # noqa: F401
    logging.getLogger("OpenGL").setLevel(logging.WARNING)  # it tells everyone that an accelerator is not installed
    os.environ["PYOPENGL_PLATFORM"] = platform
    if platform == "egl":
        from mujoco.egl import GLContext
    else:
        from mujoco.osmesa import GLContext
    context = GLContext(size, size)
    context.make_current()
    return context


def check_fork() -> None:
    """Raise where drawing would wait for threads that a fork has left behind."""
    if _forked_from_gl:
        raise ValueError(
            "this process was forked from one that had drawn with GL, whose driver does not survive that; start it with "
            "context='spawn' (AsyncVectorEnv, DataLoader: multiprocessing_context), or draw with renderer='warp'"
        )
