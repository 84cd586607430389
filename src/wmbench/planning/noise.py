"""Normal noise that depends on nothing but its name, so results change neither with batch size nor on resuming."""

from concurrent.futures import Future, ThreadPoolExecutor

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
        is_ahead: a thread draws the next iteration's while a GPU works on this one's.
    """

    def __init__(self, seed: int, tasks: Int[ndarray, " B"], plan: int, is_ahead: bool = False):
        self.seed, self.tasks, self.plan = seed, tasks, plan
        self._thread = ThreadPoolExecutor(1) if is_ahead else None
        self._ahead: tuple[int, tuple[int, ...], Future[Float[ndarray, "B ..."]]] | None = None

    def seeds(self) -> list[int]:
        """One number of 32 bits for each task, for a library that draws its own."""
        return [int(np.random.SeedSequence((self.seed, int(task), self.plan)).generate_state(1)[0]) for task in self.tasks]

    def __call__(self, iteration: int, shape: tuple[int, ...], device: torch.device) -> Float[Tensor, "B ..."]:
        """Samples (B, *shape); of fewer plans in the shape's first place they are the same, without the last ones."""
        drawn = self._drawn_ahead(iteration, shape)
        if drawn is None:
            drawn = self._draw(iteration, shape)
        if self._thread:
            self._ahead = iteration + 1, shape, self._thread.submit(self._draw, iteration + 1, shape)
        return torch.from_numpy(drawn).to(device)

    def _drawn_ahead(self, iteration: int, shape: tuple[int, ...]) -> Float[ndarray, "B ..."] | None:
        if self._ahead is None:
            return None
        number, there, future = self._ahead
        if number != iteration or shape[0] > there[0] or shape[1:] != there[1:]:
            return None
        return future.result()[:, : shape[0]]

    def _draw(self, iteration: int, shape: tuple[int, ...]) -> Float[ndarray, "B ..."]:
        drawn = [
            np.random.Generator(
                np.random.Philox(key=[self.seed, int(task)], counter=[0, iteration, self.plan, 0])
            ).standard_normal(shape, dtype=np.float32)
            for task in self.tasks
        ]
        return np.stack(drawn)


def coloured(white: Float[Tensor, "*S H A"], beta: int | float) -> Float[Tensor, "*S H A"]:
    """Standard normal samples on the CPU whose power falls with frequency**-beta along H (Timmer and König 1995).

    Each sample stays standard normal. The mean over H, whose frequency is zero, gets the power of the lowest other one.
    """
    steps = white.shape[-2]
    frequency = np.fft.rfftfreq(steps)
    frequency[0] = frequency[:2].max() or 1.0  # one step has no other frequency
    scale = frequency ** (-beta / 2)
    both_sides = np.concatenate([scale, scale[1 : (steps + 1) // 2]])
    scale /= np.sqrt(np.square(both_sides).mean())
    spectrum = np.fft.rfft(white.double().numpy(), axis=-2) * scale[:, None]
    return torch.from_numpy(np.fft.irfft(spectrum, n=steps, axis=-2)).to(white)
