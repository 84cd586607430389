"""Physics of a set of mazes: states of all maps are stepped side by side, each between its own map's walls."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's bindings carry no type stubs.)

import mujoco
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from wmbench.envs.maze_sets import MAP, MazeSet, groups
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import Physics, build_model, check_rows
from wmbench.envs.rendering import Scene


class ManyPhysics:
    """Steps states (B, 5), whose last number names the map, as `Physics` does those of one maze.

    model: for drawing, with a box for every wall that a map may have; `scene` puts the boxes where a map has its walls.
    """

    def __init__(self, maze: MazeSet):
        self.maze = maze
        self._parts = [Physics(one, num_threads=1) for one in maze.mazes]
        self.model = self._drawn()
        boxes = [k for k in range(self.model.ngeom) if self.model.geom_type[k] == mujoco.mjtGeom.mjGEOM_BOX]
        self._places = np.repeat(self.model.geom_pos[None], len(maze), axis=0)
        for places, one in zip(self._places, maze.mazes, strict=True):
            walls = np.argwhere(one.walls) + 1
            places[boxes, :2] = walls[0]  # those that are left over are all in one place
            places[boxes[: len(walls)], :2] = walls

    def step(self, state: Float[ndarray, "B 5"], action: Float[ndarray, "B 2"]) -> Float[ndarray, "B 5"]:
        """States after one env step.

        Raises:
            ValueError: other shapes, or numbers that are not finite.
        """
        return self.rollout(state, np.asarray(action)[:, None])[:, 0]

    def rollout(self, state: Float[ndarray, "B 5"], actions: Float[ndarray, "B T 2"]) -> Float[ndarray, "B T 5"]:
        """States after each of the actions; the start is not among them."""
        check_rows("states", state, MAP + 1)
        states = np.repeat(np.asarray(state, np.float64)[:, None], actions.shape[1], axis=1)
        for number, these in groups(state):
            states[these, :, :MAP] = self._parts[number].rollout(state[these, :MAP], actions[these])
        return states

    def scene(self, state: Float[ndarray, "B 5"]) -> Scene:
        """Where the walls of each state's map are drawn."""
        return {"geom_pos": self._places[state[:, MAP].astype(int)]}

    def _drawn(self) -> mujoco.MjModel:
        walls = np.full(self.maze.mazes[0].walls.shape, "#")
        walls[1, 1] = "."  # as no maze is without a free cell
        model, usual = build_model(Maze(["".join(row) for row in walls])), self._parts[0].model
        model.cam_pos[:], model.stat.extent = usual.cam_pos, usual.stat.extent
        return model
