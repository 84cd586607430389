"""A teacher: a network that follows another one slowly, and objectives that keep it."""

import copy

import torch
from torch import nn

from wmbench.encoders.scratch import Scratch
from wmbench.pretraining.base import Pretraining


class Teacher(nn.Module):
    """A copy of a network whose weights are the exponential moving average of the network's, without a gradient.

    Args:
        decay: part of the average that a step keeps.
    """

    def __init__(self, student: nn.Module, decay: int | float):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay ({decay}) must be at least 0 and below 1")
        self.network, self.decay = copy.deepcopy(student).requires_grad_(False), decay

    @torch.no_grad()
    def follow(self, student: nn.Module) -> None:
        for mine, newer in zip(self.network.parameters(), student.parameters(), strict=True):
            mine.lerp_(newer, 1 - self.decay)


class Taught(Pretraining):
    """Trains an encoder on what a teacher of it says; the teacher is kept.

    Args:
        decay: of the teacher's average.
    """

    def __init__(self, encoder: Scratch, decay: int | float):
        super().__init__(encoder)
        self.teacher = Teacher(encoder, decay)

    def after_step(self) -> None:
        self.teacher.follow(self.encoder)

    @property
    def result(self) -> Scratch:
        assert isinstance(self.teacher.network, Scratch)
        return self.teacher.network
