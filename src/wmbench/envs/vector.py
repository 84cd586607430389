"""Many point mazes at once: states are stepped together, frames are drawn when asked for."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from wmbench.envs.mazes import Maze
from wmbench.envs.physics import SUBSTEP_S, Physics, check_rows
from wmbench.envs.rendering import Renderer, check_image_size, make_renderer
from wmbench.envs.view import EnvSpec


class PointMazes:
    """B copies of one maze, each at its own state.

    Args:
        maze: a name in mazes.MAPS or the rows of a map.
        renderer: auto, egl, osmesa or warp; made when the first frame is asked for.
        image_size: side of the square frames [pixels]; 0 draws nothing, for agents that never look.
        render_lag: after a step draw the ball where it was one sub-step ago, as the original does (its frames then lag
            the state by 0.01 s, up to 1.7 of 224 pixels). We draw the true state; published frames need the lag.
        num_threads: threads that step the physics; by default one per core.
    """

    action_dim = EnvSpec.action_dim
    proprio_dim = EnvSpec.proprio_dim

    def __init__(
        self,
        maze: Any = "umaze",
        renderer: str = "auto",
        image_size: int = 224,
        render_lag: bool = False,
        num_threads: int | None = None,
    ):
        check_image_size(image_size, least=0)
        self.maze = Maze(maze)
        self.physics = Physics(self.maze, num_threads=num_threads)
        self.image_size = image_size
        self.render_lag = render_lag
        self._renderer_kind = renderer
        self._renderer: Renderer | None = None
        self.state: Float[ndarray, "B 4"] = np.empty((0, 4))

    @property
    def renderer(self) -> Renderer:
        if self._renderer is None:
            self._renderer = make_renderer(self._renderer_kind, self.physics.model, self.image_size)
        return self._renderer

    def close(self) -> None:
        """Give the renderer and the states back; setting states opens it again."""
        self._renderer = None
        self.state = np.empty((0, 4))

    def set_state(self, state: Float[ndarray, "B 4"]) -> None:
        """Put the B balls at x, y [m] with vx, vy [m/s]; B may change.

        Raises:
            ValueError: another shape, or numbers that are not finite.
        """
        state = np.array(state, dtype=np.float64)
        check_rows("states", state, 4)
        self.state = state

    def step(self, action: Float[ndarray, "B 2"], which: ndarray | slice = slice(None)) -> None:
        """Take one env step (0.05 s) of every ball, or of those that `which` indexes; the others do not move."""
        self.state[which] = self.physics.step(self.state[which], action)

    def frames(self, state: Float[ndarray, "B 4"], was_set: bool | Bool[ndarray, " B"] = False) -> UInt8[ndarray, "B h w 3"]:
        """Draw any states; the balls' own do not change.

        Args:
            was_set: not stepped to, as the first state of an episode or a goal is; then render_lag does not show.
        """
        if self.image_size == 0:
            return np.empty((len(state), 0, 0, 3), np.uint8)
        seconds = np.where(was_set, 0.0, SUBSTEP_S)[..., None] if self.render_lag else 0.0
        return self.renderer.frames(state[:, :2] - seconds * state[:, 2:])  # where it was one semi-implicit sub-step ago
