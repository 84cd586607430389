"""Frames of the maze from above, with or without a system GL library.

Every renderer gives the rows of the published frames: DINO-WM stores OpenGL's order, bottom row first, so row grows with
y and column with x. Frames of two renderers differ by a few grey levels and at edges: a run plans with its own.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's bindings carry no type stubs.)

import atexit
import contextlib
import copy
import functools
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import mujoco
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from wmbench.envs import gl
from wmbench.envs.physics import BODY_ORIGIN

RENDERERS = ("auto", *gl.PLATFORMS, "warp")
Scene = Mapping[str, ndarray]  # a field of the model -> its value in each frame
PLACED = ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir")  # what follows for Warp from
UNREAD = ("geom_pos", "geom_quat", "cam_pos", "cam_quat", "light_dir")  # these fields of a scene
OFFSCREEN = 1024  # side of the buffer that GL draws into, where a frame needs no larger one [pixels]


@runtime_checkable
class Renderer(Protocol):
    name: str
    driver: str  # the device that draws

    def frames(self, position: Float[ndarray, "B 2"], scene: Scene | None = None) -> UInt8[ndarray, "B h w 3"]: ...


def make_renderer(
    kind: str, model: mujoco.MjModel, image_size: int, has_shadows: bool = False, device: str = "auto"
) -> Renderer:
    """Make the renderer named `kind`, for square frames of image_size pixels; auto takes EGL, else OSMesa, else Warp.

    Args:
        model: one that nobody else writes to, where frames are asked for with a scene of their own.
        has_shadows: lights that cast shadows do so.
        device: that Warp draws on, as PyTorch calls it; auto takes a GPU where there is one. GL takes what its driver does.

    Raises:
        ValueError: an unknown name, a renderer that this machine lacks, or frames larger than it can draw.
    """
    check_image_size(image_size, least=1)
    kind = resolve(kind)
    if kind == "warp":
        return WarpRenderer(model, image_size, has_shadows, device)
    return GLRenderer(kind, model, image_size)


def check_image_size(image_size: Any, least: int) -> None:
    """Raise where frames would have no such side [pixels]."""
    if isinstance(image_size, bool) or not isinstance(image_size, int | np.integer) or image_size < least:
        raise ValueError(f"image_size ({image_size!r}) must be a whole number of pixels, {least} or more, such as 224")


def resolve(kind: str) -> str:
    """The renderer's name on this machine, with auto resolved."""
    if kind not in RENDERERS:
        raise ValueError(f"unknown renderer {kind!r}; known: {', '.join(RENDERERS)}")
    if kind == "auto":
        chosen = next((platform for platform in gl.PLATFORMS if gl.why_not(platform) is None), "warp")
        if chosen != "egl" and "MUJOCO_EGL_DEVICE_ID" in os.environ:
            warnings.warn(f"renderer auto takes {chosen}, as egl does not work: {gl.why_not('egl')}", stacklevel=2)
        return chosen
    if kind != "warp" and (reason := gl.why_not(kind)):
        raise ValueError(
            f"renderer {kind!r} does not work on this machine (no usable GL library: {reason}); data and runs whose frames "
            f"it drew need it; for new ones warp needs none (env.renderer=warp)"
        )
    return kind


def pixel_of(position: Float[ndarray, "*B 2"], model: mujoco.MjModel, image_size: int) -> Float[ndarray, "*B 2"]:
    """Column and row at which a frame shows the ball's positions [m]."""
    camera = model.cam_pos[0]
    visible = 2 * camera[2] * np.tan(np.radians(model.cam_fovy[0]) / 2)  # side of the frame at the ball's height [m]
    return (image_size - 1) / 2 + image_size / visible * (position + BODY_ORIGIN - camera[:2])


def place(
    model: mujoco.MjModel, data: mujoco.MjData, position: Float[ndarray, "2"], scene: Scene | None = None, b: int = 0
) -> None:
    """Set data, and where there is a scene the model too, to frame b."""
    for name, values in (scene or {}).items():
        getattr(model, name)[:] = values[b]
    data.qpos[:] = position
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)


class GLRenderer:
    """MuJoCo's own renderer over EGL or OSMesa, one frame at a time."""

    def __init__(self, platform: str, model: mujoco.MjModel, image_size: int):
        self.name = platform
        self._model, self._data = model, mujoco.MjData(model)
        self._size = image_size
        self._gl = gl.make_context(platform, image_size)
        self._context = _draw_context(platform, model, image_size)
        self.driver = _gl_device()
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 10)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = 0

    def __del__(self) -> None:
        """Give back what GL holds, in this renderer's own context: names of buffers in another one are of other buffers."""
        if hasattr(self, "_context"):
            with self._gl.as_current():
                self._context.free()
        if hasattr(self, "_gl"):
            self._gl.free()

    def frames(self, position: Float[ndarray, "B 2"], scene: Scene | None = None) -> UInt8[ndarray, "B h w 3"]:
        gl.check_fork()
        self._gl.make_current()
        frames = np.empty((len(position), self._size, self._size, 3), np.uint8)
        view = mujoco.MjrRect(0, 0, self._size, self._size)
        for b, frame in enumerate(frames):
            place(self._model, self._data, position[b], scene, b)
            everything = mujoco.mjtCatBit.mjCAT_ALL.value
            mujoco.mjv_updateScene(self._model, self._data, mujoco.MjvOption(), None, self._camera, everything, self._scene)
            mujoco.mjr_render(view, self._scene, self._context)
            mujoco.mjr_readPixels(frame, None, view, self._context)  # OpenGL's row order is the one we keep
        return frames


def _draw_context(platform: str, model: mujoco.MjModel, image_size: int) -> mujoco.MjrContext:
    """What MuJoCo draws with in the current GL context, its buffer as large as a frame."""
    model = copy.copy(model)
    model.vis.global_.offwidth = model.vis.global_.offheight = max(OFFSCREEN, image_size)
    try:
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    except mujoco.FatalError as error:
        raise ValueError(
            f"image_size ({image_size}) is more than {platform} can draw here ({error}); lower it, or draw with warp"
        ) from None
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, context)
    if context.offWidth < image_size or context.offHeight < image_size:
        raise ValueError(
            f"image_size ({image_size}) must not exceed the {min(context.offWidth, context.offHeight)} pixels that "
            f"{platform} can draw here; lower it, or draw with warp"
        )
    return context


def _gl_device() -> str:
    """What the current GL context draws with, such as `llvmpipe (LLVM 15.0.6, 256 bits)`."""
    from OpenGL import GL

    return GL.glGetString(GL.GL_RENDERER).decode()


class WarpRenderer:
    """MuJoCo Warp's ray tracer, batched, on a GPU or on one CPU core."""

    name = "warp"

    def __init__(self, model: mujoco.MjModel, image_size: int, has_shadows: bool = False, device: str = "auto"):
        self._mjw, self._wp = _import_warp()
        self._device = _warp_device(self._wp, device)
        self.driver = f"{self._device.alias} {self._device.name}"
        model = copy.copy(model)
        if model.vis.headlight.active:
            # OpenGL clamps the light, here 0.4 ambient + 0.8 diffuse, to 1 before it colours a texture; Warp does not.
            model.tex_data[:] = np.round(model.tex_data / 1.2)
        self._mjmodel, self._size, self._has_shadows = model, image_size, has_shadows
        self._ball = model.geom("drawn_ball").id
        # A stage's camera is in no geom and none of its materials shines: not to ask saves a twentieth of the time.
        self._known = {} if model.vis.headlight.active else {"enable_backface_culling": False, "enable_emission": False}
        with self._wp.ScopedDevice(self._device):
            self._model = self._mjw.put_model(model)
        self._batches: dict[int, tuple[Any, Any, ndarray]] = {}

    def frames(self, position: Float[ndarray, "B 2"], scene: Scene | None = None) -> UInt8[ndarray, "B h w 3"]:
        frames = np.empty((len(position), self._size, self._size, 3), np.uint8)
        first = 0
        while first < len(position):
            these = slice(first, first + max(n for n in (1, 8, 64) if n <= len(position) - first))
            frames[these] = self._draw(position[these], scene and {name: values[these] for name, values in scene.items()})
            first = these.stop
        return frames

    def _draw(self, position: Float[ndarray, "B 2"], scene: Scene | None) -> UInt8[ndarray, "B h w 3"]:
        data, context, geom_xpos = self._worlds(len(position))
        with self._wp.ScopedDevice(self._device):
            if scene:
                self._set(data, position, scene)
            else:
                geom_xpos[:, self._ball, :2] = position + BODY_ORIGIN
                data.geom_xpos.assign(geom_xpos)
            self._mjw.refit_bvh(self._model, data, context)
            self._mjw.render(self._model, data, context)
        blue_green_red = context.rgb_data.numpy().view(np.uint8).reshape(len(position), self._size, self._size, 4)
        return blue_green_red[:, ::-1, :, 2::-1]  # from top row first to bottom row first

    def _set(self, data: Any, position: Float[ndarray, "B 2"], scene: Scene) -> None:
        """Give each world its frame: the fields of the model that drawing reads, and the places that follow from them."""
        here = mujoco.MjData(self._mjmodel)
        placed: dict[str, list[ndarray]] = {name: [] for name in PLACED}
        for b, xy in enumerate(position):
            place(self._mjmodel, here, xy, scene, b)
            for name in PLACED:
                placed[name].append(getattr(here, name).copy())
        for name, values in placed.items():
            array = getattr(data, name)
            array.assign(np.stack(values).reshape(array.numpy().shape))
        for name in set(scene) - set(UNREAD):
            array = getattr(self._model, name)
            setattr(self._model, name, self._wp.array(scene[name], dtype=array.dtype))

    def _worlds(self, num_worlds: int) -> tuple[Any, Any, ndarray]:
        """Data, render context and geom positions of a batch of worlds, made once for each size."""
        if num_worlds in self._batches:
            return self._batches[num_worlds]
        data = mujoco.MjData(self._mjmodel)
        mujoco.mj_forward(self._mjmodel, data)
        size = (self._size, self._size)
        with self._wp.ScopedDevice(self._device):
            worlds = self._mjw.put_data(self._mjmodel, data, nworld=num_worlds)
            context = self._mjw.create_render_context(
                self._mjmodel, nworld=num_worlds, cam_res=size, render_rgb=True, use_shadows=self._has_shadows, **self._known
            )
        self._batches[num_worlds] = worlds, context, worlds.geom_xpos.numpy().copy()
        return self._batches[num_worlds]


def _warp_device(wp: Any, device: str) -> Any:
    """Warp's name for PyTorch's device; auto is a GPU where Warp has one. Apple's are none of Warp's."""
    if device == "auto":
        return wp.get_preferred_device()
    try:
        return wp.get_device(device if device.startswith("cuda") else "cpu")
    except ValueError as error:
        raise ValueError(f"renderer 'warp' cannot draw on device={device} ({error}); use device=cpu") from None


def _import_warp():
    """mujoco_warp and warp, without their start-up messages."""
    import warp as wp

    wp.config.log_level = wp.LOG_ERROR
    if folder := _kernel_folder():  # never back to None, which warp's init has replaced by a path
        wp.config.kernel_cache_dir = folder
    with _silent_stderr():  # its C++ part warns of a missing CUDA driver at any level
        wp.init()
    import mujoco_warp as mjw

    return mjw, wp


@functools.cache
def _kernel_folder() -> str | None:
    """A temporary place for warp's compiled kernels on a machine where the usual one cannot be written to, else None."""
    if "WARP_CACHE_PATH" in os.environ:
        return None
    usual = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "warp"
    try:
        usual.mkdir(parents=True, exist_ok=True)
    except OSError:
        pass
    else:
        if os.access(usual, os.W_OK):
            return None
    kept = tempfile.TemporaryDirectory(prefix="warp-")
    atexit.register(kept.cleanup)
    print(f"note: {usual} cannot be written to, so warp compiles anew; WARP_CACHE_PATH=FOLDER keeps it", file=sys.stderr)
    return kept.name


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what native code writes to the error stream."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
