"""Normal noise that depends on nothing but its name, so results change neither with batch size nor on resuming."""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor


class KeyedNoise:
    """Standard normal samples named by (seed, task, plan, iteration).

    Args:
        tasks: numbers of the tasks in the batch.
        plan: how many plans the episode has made before this one.
    """

    def __init__(self, seed: int, tasks: Int[ndarray, " B"], plan: int):
        self.seed, self.tasks, self.plan = seed, tasks, plan

    def __call__(self, iteration: int, shape: tuple[int, ...], device: torch.device) -> Float[Tensor, "B ..."]:
        drawn = [
            np.random.Generator(
                np.random.Philox(key=[self.seed, int(task)], counter=[0, iteration, self.plan, 0])
            ).standard_normal(shape, dtype=np.float32)
            for task in self.tasks
        ]
        return torch.from_numpy(np.stack(drawn)).to(device)
