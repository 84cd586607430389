"""`wmbench/PointMaze-v0`: DINO-WM's PointMaze as a gymnasium environment on today's MuJoCo.

Registered by `import wmbench`; `gymnasium.make("wmbench:wmbench/PointMaze-v0")` does both.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from wmbench.envs.physics import is_success
from wmbench.envs.vector import PointMazes


class PointMaze(gymnasium.Env):
    """A ball pushed through a maze, seen from above.

    Action: force fraction along x and y, in [-1, 1], held for 0.05 s. Observation: `visual`, an RGB frame, and `proprio`,
    (x, y, vx, vy). Reward: 1 within 0.5 m of the goal's position, else 0. As in the original the goal is not drawn and an
    episode never terminates; `info["is_success"]` says whether the ball is there.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        maze: str | Sequence[str] = "umaze",
        renderer: str = "auto",
        image_size: int = 224,
        render_lag: bool = False,
        render_mode: str | None = None,
    ):
        self._world = PointMazes(maze, renderer, image_size, render_lag, num_threads=1)
        self.maze = self._world.maze
        self.render_mode = render_mode
        self.goal = np.zeros(4)
        self.action_space = spaces.Box(-1.0, 1.0, (PointMazes.action_dim,), np.float32)
        self.observation_space = spaces.Dict(
            visual=spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
            proprio=spaces.Box(-np.inf, np.inf, (PointMazes.proprio_dim,), np.float32),
        )

    @property
    def state(self) -> NDArray[np.float64]:
        """(x, y, vx, vy) in full precision."""
        return self._world.state[0].copy()

    def set_state(self, state: ArrayLike) -> None:
        """Put the ball at x, y [m] with vx, vy [m/s]."""
        self._world.set_state(np.asarray(state, dtype=np.float64)[None])
        self._was_set = True

    def is_success(self) -> bool:
        """Whether the ball lies within 0.5 m of the goal's position."""
        return bool(is_success(self.state, self.goal))

    def geodesic(self, start: ArrayLike, goal: ArrayLike) -> float:
        """Shortest collision-free path [m] between two positions (x, y)."""
        return float(self.maze.geodesic(np.asarray(start)[None], np.asarray(goal)[None])[0])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Random start and goal, or those of options: {"state": (4,), "goal": (4,)}.

        With a seed the pair is DINO-WM's `sample_random_init_goal_states(seed)`.
        """
        super().reset(seed=seed)
        rng = np.random.RandomState(seed if seed is not None else self.np_random.integers(2**31))
        start, goal = self.maze.sample_state(rng), self.maze.sample_state(rng)
        options = options or {}
        if unknown := set(options) - {"state", "goal"}:
            raise ValueError(f"unknown reset options {sorted(unknown)}; known: state, goal")
        self.goal = np.asarray(options.get("goal", goal), dtype=np.float64)
        self.set_state(options.get("state", start))
        return self._observe(), self._info()

    def step(self, action: ArrayLike):
        self._world.step(np.asarray(action, dtype=np.float64)[None])
        self._was_set = False
        return self._observe(), float(self.is_success()), False, False, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """The observation's frame, with DINO-WM's row order (y grows downwards)."""
        return self._frame() if self.render_mode == "rgb_array" else None

    def _frame(self) -> NDArray[np.uint8]:
        return self._world.frames(self._world.state, self._was_set)[0]

    def _observe(self) -> dict[str, NDArray]:
        return {"visual": self._frame(), "proprio": self.state.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        return {"state": self.state, "goal": self.goal.copy(), "is_success": self.is_success()}
