"""A teacher: a network that follows another one slowly."""

import copy

import torch
from torch import nn


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
