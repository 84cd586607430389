"""Many point mazes at once: states are stepped together, frames are drawn when asked for."""

import hashlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from wmbench.envs.appearance import GOAL_STEP, SENSOR, Appearance
from wmbench.envs.many_physics import ManyPhysics
from wmbench.envs.maze_sets import MazeSet, maze_of
from wmbench.envs.mazes import CELL_OFFSET, Maze
from wmbench.envs.painter import Painter
from wmbench.envs.physics import SUBSTEP_S, Physics, check_rows
from wmbench.envs.rendering import Renderer, Scene, check_image_size
from wmbench.envs.view import EnvSpec


class PointMazes:
    """B copies of one maze, each at its own state.

    Args:
        maze: a name in mazes.MAPS, the rows of a map, or those of a set of maps (MazeSet.rows): states then have a fifth
            number, their map's.
        renderer: auto, egl, osmesa or warp; made when the first frame is asked for.
        image_size: side of the square frames [pixels]; 0 draws nothing, for agents that never look.
        render_lag: after a step draw the ball where it was one sub-step ago, as the original does (its frames then lag
            the state by 0.01 s, up to 1.7 of 224 pixels). We draw the true state; published frames need the lag.
        num_threads: threads that step the physics; by default one per core.
        appearance: what frames look like, as Appearance.of reads it.
        look_seed: an episode's look follows from it and the episode's number.
        goal_appearance: of goals' frames; by default as the others.
        device: that Warp draws on, as make_renderer takes it.

    Raises:
        ValueError: a maze, image size or appearance that cannot be.
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
        appearance: Any = "clean",
        goal_appearance: Any = None,
        look_seed: int = 0,
        device: str = "auto",
    ):
        check_image_size(image_size, least=0)
        self.maze = maze = maze_of(maze)
        is_set = isinstance(maze, MazeSet)
        self.physics = ManyPhysics(maze) if is_set else Physics(maze, num_threads=num_threads)
        self.image_size = image_size
        self.render_lag = render_lag
        self.appearance = Appearance.of(appearance)
        self.goal_appearance = Appearance.of(self.appearance if goal_appearance is None else goal_appearance)
        if is_set and (drawn := {*self.appearance.names, *self.goal_appearance.names} - set(SENSOR)):
            raise ValueError(
                f"env.maze=random is drawn as usual or with {', '.join(SENSOR)}; "
                f"leave out of appearance: {', '.join(sorted(drawn))}"
            )
        self.look_seed = look_seed
        self._painter = Painter(self.maze.at(np.zeros(5)), self.physics.model, renderer, image_size, device)
        self.state_dim = 5 if is_set else 4
        self.state: Float[ndarray, "B S"] = np.empty((0, self.state_dim))

    def probe(self) -> str:
        """Twelve hex digits that name how this machine draws: of a frame with the ball in a maze's first free cell."""
        state, number = np.zeros((1, self.state_dim)), np.zeros(1, np.int64)
        first = np.argwhere(~self.maze.at(state[0]).walls)[:1] - CELL_OFFSET
        frame = self._painter.frames(first, self.appearance, 0, number, number, self._walls(state))
        return hashlib.sha256(frame.tobytes()).hexdigest()[:12]

    @property
    def single(self) -> tuple[Maze, Physics]:
        """The maze and its physics, for what looks at one map only.

        Raises:
            ValueError: a set of maps.
        """
        if isinstance(self.maze, MazeSet) or isinstance(self.physics, ManyPhysics):
            raise ValueError("env.maze=random is a set of maps, and this looks at one; take a named maze or its rows")
        return self.maze, self.physics

    @property
    def renderer(self) -> Renderer:
        return self._painter.renderer(self.appearance)

    def close(self) -> None:
        """Give the renderer and the states back; setting states opens it again."""
        self._painter.close()
        self.state = np.empty((0, self.state_dim))

    def set_state(self, state: Float[ndarray, "B S"]) -> None:
        """Put the B balls at x, y [m] with vx, vy [m/s]; B may change.

        Raises:
            ValueError: another shape, or numbers that are not finite.
        """
        state = np.array(state, dtype=np.float64)
        check_rows("states", state, self.state_dim)
        self.state = state

    def step(self, action: Float[ndarray, "B 2"], which: ndarray | slice = slice(None)) -> None:
        """Take one env step (0.05 s) of every ball, or of those that `which` indexes; the others do not move."""
        self.state[which] = self.physics.step(self.state[which], action)

    def frames(
        self,
        state: Float[ndarray, "B S"],
        was_set: bool | Bool[ndarray, " B"] = False,
        episode: int | Int[ndarray, " B"] = 0,
        step: int | Int[ndarray, " B"] = 0,
        is_goal: bool = False,
    ) -> UInt8[ndarray, "B h w 3"]:
        """Draw any states; the balls' own do not change.

        Args:
            was_set: not stepped to, as the first state of an episode or a goal is; then render_lag does not show.
            episode, step: whose look the frames have, and at which env step of it.
            is_goal: they show goals, of which the step does not count.
        """
        if self.image_size == 0:
            return np.empty((len(state), 0, 0, 3), np.uint8)
        seconds = np.where(was_set, 0.0, SUBSTEP_S)[..., None] if self.render_lag else 0.0
        position = state[:, :2] - seconds * state[:, 2:4]  # where it was one semi-implicit sub-step ago
        appearance, step = (self.goal_appearance, GOAL_STEP) if is_goal else (self.appearance, step)
        episode, step = (np.broadcast_to(np.asarray(number), len(state)) for number in (episode, step))
        return self._painter.frames(position, appearance, self.look_seed, episode, step, self._walls(state))

    def _walls(self, state: Float[ndarray, "B S"]) -> Scene | None:
        """Where each state's frame has its walls, in a set of maps."""
        return self.physics.scene(state) if isinstance(self.physics, ManyPhysics) else None
