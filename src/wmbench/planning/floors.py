"""The floors of every table: actors that neither look nor plan."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from wmbench.planning.actor import Decision, Look, Read
from wmbench.shapes import Obs


class Floor:
    """An actor that neither looks nor plans."""

    decisions: Sequence[Decision] = ()
    evaluations_per_plan = 0.0

    def watch(self, read: Read | None, num_kept: int) -> None:
        pass

    def thoughts(self) -> None:
        return None

    def forecast(self, example: Obs, num_tasks: int, blocks: int) -> float:
        return 0.0


class RandomAgent(Floor):
    """Uniform random actions."""

    def __init__(self, frameskip: int, action_dim: int, seed: int):
        if seed < 0:
            raise ValueError(f"seed ({seed}) must not be negative")
        self.shape, self.seed = (frameskip, action_dim), seed

    def reset(self, goal: Obs, blocks: int | float, number: Int[ndarray, " B"] | None = None) -> None:
        number = np.arange(len(goal["proprio"])) if number is None else number
        self._rngs = [np.random.default_rng((self.seed, int(task))) for task in number]

    def act(self, look: Look, active: Int[ndarray, " B"]) -> Float[ndarray, "B frameskip a"]:
        return np.stack([self._rngs[task].uniform(-1, 1, self.shape) for task in active]).astype(np.float32)


class ZeroAgent(Floor):
    """Does nothing, which shows how many tasks the ball's own velocity solves."""

    def __init__(self, frameskip: int, action_dim: int):
        self.shape = (frameskip, action_dim)

    def reset(self, goal: Obs, blocks: int | float, number: Int[ndarray, " B"] | None = None) -> None:
        pass

    def act(self, look: Look, active: Int[ndarray, " B"]) -> Float[ndarray, "B frameskip a"]:
        return np.zeros((len(active), *self.shape), np.float32)
