"""`wmbench/PointMaze-v0`: DINO-WM's PointMaze as a gymnasium environment on today's MuJoCo.

Registered by `import wmbench`; `gymnasium.make("wmbench:wmbench/PointMaze-v0")` does both.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import ArrayLike, NDArray

from wmbench.envs.appearance import Appearance, variation_space
from wmbench.envs.physics import is_success
from wmbench.envs.rendering import check_image_size
from wmbench.envs.vector import PointMazes


class PointMaze(gymnasium.Env):
    """A ball pushed through a maze, seen from above.

    Action: force fraction along x and y, in [-1, 1], held for 0.05 s. Observation: `visual`, an RGB frame, and `proprio`,
    (x, y, vx, vy). Reward: 1 within 0.5 m of the goal's position, else 0. As in the original the goal is not drawn and an
    episode never terminates; `info["is_success"]` says whether the ball is there.

    Args:
        appearance: what frames look like: a name (`all`), with a scale (`all 0.1`), or factors with their values. What an
            episode draws follows from its seed; `variation_space` has every factor with its range.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        maze: Any = "umaze",
        render_mode: str | None = None,
        renderer: str = "auto",
        image_size: int = 224,
        render_lag: bool = False,
        appearance: Any = "clean",
    ):
        check_image_size(image_size, least=1)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode ({render_mode!r}) must be None or 'rgb_array'")
        self._world = PointMazes(maze, renderer, image_size, render_lag, num_threads=1, appearance=appearance)
        self.appearance = self._world.appearance
        self.variation_space = variation_space()
        self.maze, _ = self._world.single
        self.render_mode = render_mode
        self.goal = np.zeros(4)
        self.action_space = spaces.Box(-1.0, 1.0, (PointMazes.action_dim,), np.float32)
        self.observation_space = spaces.Dict(
            visual=spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
            proprio=spaces.Box(-np.inf, np.inf, (PointMazes.proprio_dim,), np.float32),
        )

    @property
    def state(self) -> NDArray[np.float64]:
        """(x, y, vx, vy) in full precision.

        Raises:
            ResetNeeded: there is none before the first reset and after close.
        """
        if not len(self._world.state):
            raise ResetNeeded("the ball has no state yet: call reset() before step, render or is_success, and after close")
        return self._world.state[0].copy()

    def set_state(self, state: ArrayLike) -> None:
        """Put the ball at x, y [m] with vx, vy [m/s].

        Raises:
            ValueError: another shape, numbers that are not finite, or a position in a wall or outside the maze.
        """
        state = _vector("state", state, 4)
        if not self.maze.is_free(state[:2]):
            raise ValueError(f"state {state.tolist()} must lie in a free cell; env.maze.sample_state gives one that does")
        self._world.set_state(state[None])
        self._was_set = True

    def is_success(self) -> bool:
        """Whether the ball is within 0.5 m of the goal's position."""
        return bool(is_success(self.state, self.goal))

    def geodesic(self, start: ArrayLike, goal: ArrayLike) -> float:
        """Shortest collision-free path [m] between two positions (x, y)."""
        return float(self.maze.geodesic(np.asarray(start)[None], np.asarray(goal)[None])[0])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begin at a random start with a random goal, or with those of options: {"state": (4,), "goal": (4,)}.

        With a seed the pair is DINO-WM's `sample_random_init_goal_states(seed)`. options["appearance"] is one for this
        episode: a name, or values of factors, such as {"camera_tilt": 12} or what variation_space.sample() gives.
        """
        super().reset(seed=seed)
        number = seed if seed is not None else int(self.np_random.integers(2**31))
        rng = np.random.RandomState(number)
        start, goal = self.maze.sample_state(rng), self.maze.sample_state(rng)
        options = options or {}
        if unknown := set(options) - {"state", "goal", "appearance"}:
            raise ValueError(f"unknown reset options {sorted(unknown)}; known: state, goal, appearance")
        appearance = Appearance.of(options.get("appearance", self.appearance))
        goal = _vector("goal", options.get("goal", goal), 4)
        self.set_state(_vector("state", options.get("state", start), 4))
        self.goal = goal
        self._world.appearance, self._episode, self._step = appearance, number, 0
        return self._observe(), self._info()

    def step(self, action: Any):
        """Take one env step; forces beyond full throttle are clipped.

        Raises:
            ResetNeeded: before the first reset and after close.
            ValueError: another shape, or numbers that are not finite.
        """
        action = _vector("action", action, PointMazes.action_dim)
        _ = self.state  # is there one?
        self._world.step(action[None])
        self._was_set = False
        self._step += 1
        return self._observe(), float(self.is_success()), False, False, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """The observation's frame, with DINO-WM's row order (y grows downwards)."""
        return self._frame() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Give the renderer back; reset opens it again."""
        self._world.close()

    def _frame(self) -> NDArray[np.uint8]:
        return self._world.frames(self.state[None], self._was_set, self._episode, self._step)[0]

    def _observe(self) -> dict[str, NDArray]:
        return {"visual": self._frame(), "proprio": self.state.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        return {"state": self.state, "goal": self.goal.copy(), "is_success": self.is_success()}


def _vector(name: str, values: Any, size: int) -> NDArray[np.float64]:
    """The values as `size` finite numbers; raises ValueError where they are not."""
    try:
        vector = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        vector = np.empty(0)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise ValueError(f"{name} must be {size} finite numbers, not {values!r}")
    return vector
