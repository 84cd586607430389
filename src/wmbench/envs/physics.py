"""The ball's physics: MJCF of a maze and the stepping of many states at once.

Values and order are DINO-WM's (env/pointmaze): clip the action to [-1, 1], clip the velocity to 5 m/s per axis, then five
sub-steps of 0.01 s under constant control. Speeds after a step may therefore exceed 5 m/s.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's bindings carry no type stubs.)

import os
import weakref

import mujoco
import numpy as np
from mujoco import rollout
from numpy.typing import NDArray

from wmbench.envs.mazes import BALL_RADIUS, Maze
from wmbench.envs.view import EnvSpec

SUBSTEPS = 5
SUBSTEP_S = 0.01
MAX_SPEED = 5.0  # per axis before a step [m/s]
BODY_ORIGIN = 1.2  # world position of the ball at qpos 0 [m]
SUCCESS_RADIUS = EnvSpec.success_radius  # [m], strict
# MuJoCo 2.1, which DINO-WM ran on, lets a contact begin at the larger of two geoms' margins (0.002 m); MuJoCo 4 at their
# sum. Half the margin on each geom gives the original's contact distance.
GEOM_MARGIN = 0.001


def maze_mjcf(maze: Maze, geom_margin: float = GEOM_MARGIN) -> str:
    """MJCF of the maze. The original's ball is a site; a geom without mass or contacts is one that Warp draws too."""
    walls = "\n".join(
        f'<geom type="box" pos="{w + 1} {h + 1} 0" size="0.5 0.5 0.2" material="wall" contype="2" conaffinity="1"/>'
        for w, h in np.argwhere(maze.walls)
    )
    return f"""
    <mujoco model="point_maze">
      <compiler inertiafromgeom="true" angle="radian"/>
      <option timestep="{SUBSTEP_S}" gravity="0 0 0" iterations="20" integrator="Euler"/>
      <default>
        <joint damping="1" limited="false"/>
        <geom friction=".5 .1 .1" density="1000" margin="{geom_margin}" condim="1" contype="2" conaffinity="1"/>
      </default>
      <visual>
        <headlight ambient=".4 .4 .4" diffuse=".8 .8 .8" specular=".1 .1 .1"/>
        <map znear="0.01"/>
        <quality shadowsize="2048"/>
        <global offwidth="1024" offheight="1024"/>
      </visual>
      <asset>
        <texture name="floor" type="2d" builtin="checker" rgb1="0.2 0.3 0.4" rgb2="0.1 0.2 0.3" width="100" height="100"/>
        <material name="floor" texture="floor" texrepeat="20 20"/>
        <material name="wall" rgba=".7 .5 .3 1"/>
      </asset>
      <worldbody>
        <geom name="floor" type="plane" size="40 40 0.25" pos="0 0 -0.1" contype="1" conaffinity="0" material="floor"/>
        <body name="ball" pos="{BODY_ORIGIN} {BODY_ORIGIN} 0">
          <geom name="ball" type="sphere" size="{BALL_RADIUS}" rgba="0 0 1 0" contype="1"/>
          <geom name="drawn_ball" type="sphere" size="{2 * BALL_RADIUS}" mass="0"
                contype="0" conaffinity="0" rgba="0.3 0.6 0.3 1"/>
          <joint name="ball_x" type="slide" axis="1 0 0"/>
          <joint name="ball_y" type="slide" axis="0 1 0"/>
        </body>
        {walls}
        <camera name="top" xyaxes="1 0 0 0 1 0" fovy="45"/>
      </worldbody>
      <actuator>
        <motor joint="ball_x" ctrlrange="-1 1" ctrllimited="true" gear="100"/>
        <motor joint="ball_y" ctrlrange="-1 1" ctrllimited="true" gear="100"/>
      </actuator>
    </mujoco>"""


def build_model(maze: Maze, geom_margin: float = GEOM_MARGIN) -> mujoco.MjModel:
    """The maze's model, its camera as high above the map's middle as MuJoCo's free camera: the model's extent.

    For the U-maze that is the original's 9.7348 m above (3, 3): a frame shows 8.06 m, 27.8 pixels per metre at 224 pixels.
    """
    model = mujoco.MjModel.from_xml_string(maze_mjcf(maze, geom_margin))
    model.cam_pos[0] = [*(np.array(maze.walls.shape) + 1) / 2, model.stat.extent]
    return model


_used_here: weakref.WeakSet["Physics"] = weakref.WeakSet()
_left_behind: list[rollout.Rollout | None] = []  # kept, since to delete a pool is to wait for its threads


def _after_fork() -> None:
    """Pools lose their threads in a fork; the child makes its own."""
    for physics in _used_here:
        _left_behind.append(physics._pool)
        physics._pool = None


os.register_at_fork(after_in_child=_after_fork)


class Physics:
    """A maze's MuJoCo model and a pool of threads that steps batches of states."""

    def __init__(self, maze: Maze, geom_margin: float = GEOM_MARGIN, num_threads: int | None = None):
        self.maze = maze
        self.model = build_model(maze, geom_margin)
        num_threads = num_threads or min(os.cpu_count() or 1, 16)
        self._data = [mujoco.MjData(self.model) for _ in range(num_threads)]
        self._pool: rollout.Rollout | None = None
        _used_here.add(self)

    def step(self, state: NDArray[np.floating], action: NDArray[np.floating]) -> NDArray[np.float64]:
        """States (B, 4) after one env step (0.05 s) of actions (B, 2).

        Raises:
            ValueError: other shapes, or numbers that are not finite; MuJoCo would go on from somewhere else.
        """
        check_rows("states", state, 4)
        check_rows("actions", action, 2)
        if len(state) != len(action):
            raise ValueError(f"{len(state)} states cannot be stepped by {len(action)} actions; set the states first")
        if not len(state):
            return np.empty((0, 4))
        if self._pool is None:
            self._pool = rollout.Rollout(nthread=len(self._data) if len(self._data) > 1 else 0)
        start = np.zeros((len(state), 1 + 4))  # MuJoCo's full state: time, qpos, qvel
        start[:, 1:3] = state[:, :2]
        start[:, 3:5] = np.clip(state[:, 2:], -MAX_SPEED, MAX_SPEED)
        control = np.repeat(np.clip(action, -1, 1)[:, None].astype(np.float64), SUBSTEPS, axis=1)
        states, _ = self._pool.rollout(self.model, self._data, start, control)
        return np.asarray(states)[:, -1, 1:]

    def rollout(self, state: NDArray[np.floating], actions: NDArray[np.floating]) -> NDArray[np.float64]:
        """States (B, T, 4) after each of the actions (B, T, 2); the start is not among them."""
        states = np.empty((len(state), actions.shape[1], 4))
        for t in range(actions.shape[1]):
            state = states[:, t] = self.step(state, actions[:, t])
        return states


def check_rows(name: str, rows: NDArray[np.floating], width: int) -> None:
    """Raise where an array is not (B, width) of finite numbers."""
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"{name} must be (B, {width}), not {rows.shape}")
    if not np.isfinite(rows).all():
        b = np.flatnonzero(~np.isfinite(rows).all(1))[0]
        raise ValueError(f"{name} must be finite, and number {b} is {rows[b].tolist()}")


def is_success(state: NDArray[np.floating], goal: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether the positions of states (..., 4) are within 0.5 m of the goals' (..., 4)."""
    return np.asarray(np.linalg.norm(state[..., :2] - goal[..., :2], axis=-1) < SUCCESS_RADIUS)
