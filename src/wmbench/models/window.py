"""Rollouts of predictors that see a window of frames: keys and values are kept, so that nothing is computed twice."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.models.attention import Memory
from wmbench.models.base import Predictor


class Window(NamedTuple):
    """Up to num_hist frames, the first of which are real and the same under every plan of a task.

    frames: from the last real one on, under each plan.
    actions: the blocks between these.
    memory: keys and values of all frames but the newest, under each plan; none where a frame has left the window since and a
        frame's place in the window is part of its keys.
    shared: keys and values of the earlier real frames, once per task: of those in this window, in the next one, and so on.
    """

    frames: list[Float[Tensor, "BS N D"]]
    actions: list[Float[Tensor, "BS A"]]
    memory: Memory
    shared: list[Memory]


class WindowPredictor(Predictor):
    """A predictor of the frames of a window, each with a place of its own.

    Args:
        num_hist: most frames that it sees.

    Attributes:
        slides: whether keys and values stay true when the window moves on, so that no frame is computed twice.
    """

    slides = False

    def __init__(self, num_hist: int):
        super().__init__()
        self.num_hist = num_hist

    @abstractmethod
    def extend(
        self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], past: Memory, keep: bool
    ) -> tuple[Float[Tensor, "B N D"], Memory]:
        """The latent that follows the last frame of z, and what the frames after z need of those up to it.

        As `forward`, but it computes nothing twice and nothing that only earlier frames' predictions would need.

        Args:
            past: of the frames of the window before z, for each row of z or shared by as many consecutive rows; empty where
                z begins the window.
            keep: whether to return what later frames need; else nothing is, which takes less memory.
        """

    def slide(self, memory: Memory) -> Memory:
        """What the frame after the newest one still sees of the window, where `slides`."""
        raise NotImplementedError

    def begin(self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], num_plans: int) -> Window:
        z = z[:, -self.num_hist :]
        past = past[:, past.shape[1] - (z.shape[1] - 1) :]
        if self.slides:
            seen = [self.slide(self.extend(z[:, :-1], past, [], keep=True)[1])] if z.shape[1] > 1 else []
            return Window([z[:, -1].repeat_interleave(num_plans, 0)], [], [], seen)
        shared = [self.extend(z[:, first:-1], past[:, first:], [], keep=True)[1] for first in range(z.shape[1] - 1)]
        return Window([z[:, -1].repeat_interleave(num_plans, 0)], [], [], shared)

    def step(self, state: Window, action: Float[Tensor, "BS A"]) -> tuple[Float[Tensor, "BS N D"], Window]:
        frames, actions, memory, shared = state
        if self.slides:
            past = memory or (shared[0] if shared else [])
            new, memory = self.extend(frames[-1][:, None], action[:, None], past, keep=True)
            return new, Window([new], [], self.slide(memory), [])
        actions = [*actions, action]
        is_full = len(shared) + len(frames) == self.num_hist
        if memory:
            new, memory = self.extend(frames[-1][:, None], action[:, None], memory, keep=not is_full)
        else:
            past = shared[0] if shared else []
            new, memory = self.extend(torch.stack(frames, 1), torch.stack(actions, 1), past, keep=not is_full)
        frames = [*frames, new]
        if is_full and shared:
            shared = shared[1:]
        elif is_full:
            frames, actions = frames[1:], actions[1:]
        return new, Window(frames, actions, memory, shared)
